"""Strategies of MMEngine's FlexibleRunner."""

from .fsdp import FSDPStrategy

__all__ = ['FSDPStrategy']
