"""Bytes that are on the disk when the call returns. Knows files; nothing of what they hold."""

from __future__ import annotations

import os
from pathlib import Path


def write_synced(path: Path, content: bytes, *, mode: str = "wb") -> None:
    """Write a file and wait until it is on the disk; mode `xb` refuses one that is there."""
    with path.open(mode) as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Wait until the folder's names are on the disk: a rename is lasting only then."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
