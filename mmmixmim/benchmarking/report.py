"""Tables and files of the benchmarks."""

from __future__ import annotations

import json
import platform
from pathlib import Path

import torch


def machine(device: torch.device | str = 'cpu') -> dict:
    """Describe the machine, for reproducibility."""
    cuda = torch.device(device).type == 'cuda'
    return dict(
        device=torch.cuda.get_device_name(device) if cuda else _processor(),
        threads=torch.get_num_threads(),
        torch=torch.__version__,
    )


def markdown_table(head: list[str], rows: list[list[str]]) -> str:
    """Format rows of cells as a Markdown table."""
    lines = [head, ['---'] * len(head), *rows]
    return '\n'.join(f'| {" | ".join(cells)} |' for cells in lines)


def with_spread(ratio: dict[str, float]) -> str:
    """Format the result of :func:`pairwise_ratio`."""
    return f'{ratio["median"]:.2f} ({ratio["low"]:.2f}-{ratio["high"]:.2f})'


def save_report(path: Path, record: dict, table: str) -> None:
    """Save a JSON file, and a table under the same name with the suffix .md."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(record, indent=1) + '\n')
    path.with_suffix('.md').write_text(table + '\n')


def _processor() -> str:
    try:
        lines = Path('/proc/cpuinfo').read_text().splitlines()
    except OSError:
        return platform.processor()
    return next(
        (line.split(':', 1)[1].strip() for line in lines if 'model name' in line),
        platform.machine(),
    )
