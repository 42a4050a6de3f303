"""Files that readers never find half written."""

from __future__ import annotations

import os
from pathlib import Path


def replace_file(path: Path, content: str | bytes) -> None:
    """Write a file, whose old content or new content is there at any moment.

    Args:
        path: The file. Missing parent folders are created.
        content: Bytes, or text that is written in UTF-8.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # Several processes may write it at the same time.
    part = path.with_name(f'.{path.name}.{os.getpid()}.part')
    part.write_bytes(content.encode() if isinstance(content, str) else content)
    part.replace(path)
