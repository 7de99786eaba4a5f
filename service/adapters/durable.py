"""Bytes that are on the disk when the call returns. Knows files; nothing of what they hold."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


@contextmanager
def synced_file(path: Path, *, mode: str = "wb") -> Iterator[BinaryIO]:
    """Open a file for writing that is on the disk when the block ends; mode `xb` refuses one that is there."""
    with open(path, mode) as file:
        yield file  # type: ignore[misc]
        file.flush()
        os.fsync(file.fileno())


def write_synced(path: Path, content: bytes, *, mode: str = "wb") -> None:
    """Write a file and wait until it is on the disk; mode `xb` refuses one that is there."""
    with synced_file(path, mode=mode) as file:
        file.write(content)


@contextmanager
def replaced_file(path: Path) -> Iterator[BinaryIO]:
    """Open what takes a file's place in one step when the block ends; a crash or an error leaves the old one whole."""
    new = path.with_name(f".{path.name}-{secrets.token_hex(4)}")
    try:
        with synced_file(new, mode="xb") as file:
            yield file
        os.replace(new, path)
    except BaseException:
        new.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Wait until the folder's names are on the disk: a rename is lasting only then."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
