"""Strategies of MMEngine's FlexibleRunner."""

from .deepspeed import DeepSpeedStrategy
from .fsdp import FSDPStrategy

__all__ = ['DeepSpeedStrategy', 'FSDPStrategy']
