"""Measure speed and memory, also against mmpretrain's port."""

from .floor import gemm_floor, gemm_flops, linear_shapes
from .loading import PIPELINES, make_pipelines, waiting_share, write_photos
from .memory import peak_memory
from .report import machine, markdown_table, save_report, with_spread
from .throughput import (
    attention_kernels,
    largest_batch,
    matrix_rate,
    training_step,
)
from .timing import interleave, pairwise_ratio
from .workloads import IMPLEMENTATIONS, PRECISIONS, TASKS, Setting, make_workloads

__all__ = [
    'IMPLEMENTATIONS',
    'PIPELINES',
    'PRECISIONS',
    'TASKS',
    'Setting',
    'attention_kernels',
    'gemm_floor',
    'gemm_flops',
    'interleave',
    'largest_batch',
    'linear_shapes',
    'machine',
    'make_pipelines',
    'make_workloads',
    'markdown_table',
    'matrix_rate',
    'pairwise_ratio',
    'peak_memory',
    'save_report',
    'training_step',
    'waiting_share',
    'with_spread',
    'write_photos',
]
