"""Measure speed and memory, also against mmpretrain's port."""

from .batches import image_channels, random_batch
from .floor import gemm_floor, linear_shapes, ways_to_multiply
from .loading import PIPELINES, make_pipelines, waiting_share, write_photos
from .memory import give_tensors_pages, peak_memory
from .plan import batch_in_name, plan
from .plan_report import plan_report
from .report import machine, markdown_table, save_report, with_spread
from .roofline import CARDS, Card, KernelCounter, Kernels, find_card, gpu_operators
from .step_cost import image_size, measured_step, step_cost
from .throughput import (
    attention_kernels,
    cpu_card,
    largest_batch,
    matrix_rate,
    training_step,
)
from .timing import interleave, pairwise_ratio, seconds_of
from .workloads import IMPLEMENTATIONS, PRECISIONS, TASKS, Setting, make_workloads

__all__ = [
    'CARDS',
    'IMPLEMENTATIONS',
    'PIPELINES',
    'PRECISIONS',
    'TASKS',
    'Card',
    'KernelCounter',
    'Kernels',
    'Setting',
    'attention_kernels',
    'batch_in_name',
    'cpu_card',
    'find_card',
    'gemm_floor',
    'give_tensors_pages',
    'gpu_operators',
    'image_channels',
    'image_size',
    'interleave',
    'largest_batch',
    'linear_shapes',
    'machine',
    'make_pipelines',
    'make_workloads',
    'markdown_table',
    'matrix_rate',
    'measured_step',
    'pairwise_ratio',
    'peak_memory',
    'plan',
    'plan_report',
    'random_batch',
    'save_report',
    'seconds_of',
    'step_cost',
    'training_step',
    'waiting_share',
    'ways_to_multiply',
    'with_spread',
    'write_photos',
]
