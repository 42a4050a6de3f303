from .floor import gemm_floor, gemm_flops, linear_shapes
from .memory import peak_memory
from .timing import interleave, pairwise_ratio
from .workloads import IMPLEMENTATIONS, PRECISIONS, TASKS, Setting, make_workloads

__all__ = [
    'IMPLEMENTATIONS',
    'PRECISIONS',
    'TASKS',
    'Setting',
    'gemm_floor',
    'gemm_flops',
    'interleave',
    'linear_shapes',
    'make_workloads',
    'pairwise_ratio',
    'peak_memory',
]
