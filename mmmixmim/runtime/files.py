"""Files that readers never find half written."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a new file to write, which replaces another one at the end.

    If writing fails, the old file stays and the new one is removed.

    Args:
        path: The file to replace. Missing parent folders are created.
    """
    path = Path(os.path.realpath(path))  # a link stays one
    path.parent.mkdir(parents=True, exist_ok=True)
    # Several processes, of several machines, may write it at the same time.
    part = path.with_name(f'.{path.name}.{uuid4().hex}.part')
    try:
        yield part
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def replace_file(path: Path, content: str | bytes) -> None:
    """Write a file, whose old content or new content is there at any moment.

    Args:
        path: The file. Missing parent folders are created.
        content: Bytes, or text that is written in UTF-8.
    """
    with replacing(path) as part:
        part.write_bytes(content.encode() if isinstance(content, str) else content)
