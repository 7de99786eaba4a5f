"""The process that computes contributions: LightGBM in a place of its own, so that no serving process ever loads it.

Reads questions from stdin and writes answers to stdout, each a length and a msgpack array; ends when stdin ends. Knows
bundles by their digest and nothing of customers, actions or words.
"""

from __future__ import annotations

import struct
import sys
from pathlib import Path
from typing import Any, BinaryIO

import msgspec
import numpy as np

from service.adapters.bundle_dir import read_checked

LENGTH = struct.Struct("<I")
KEPT_MODELS = 2
UNUSED = ("dask", "graphviz", "matplotlib", "pandas", "polars", "pyarrow", "sklearn")
"""What LightGBM imports where it finds it, and no booster needs: seconds and megabytes."""


class Question(msgspec.Struct, array_like=True, frozen=True):
    """Rows to explain: float64 bytes, (n_rows, n_inputs) in C order."""

    number: int
    digest: str
    n_rows: int
    rows: bytes


class Answer(msgspec.Struct, array_like=True, frozen=True):
    """Contributions, float64 bytes of (n_rows, n_inputs + 1), the last of a row its base; or what went wrong."""

    number: int
    contributions: bytes
    error: str = ""


_decode = msgspec.msgpack.Decoder(Question).decode
_encode = msgspec.msgpack.Encoder().encode


def frame(message: msgspec.Struct) -> bytes:
    """Return a message with its length before it."""
    body = _encode(message)
    return LENGTH.pack(len(body)) + body


class _Models:
    """The models asked for last."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._boosters: dict[str, Any] = {}

    def contributions(self, question: Question) -> bytes:
        rows = np.frombuffer(question.rows, "<f8").reshape(question.n_rows, -1)
        found = self._booster(question.digest).predict(rows, pred_contrib=True, num_threads=1)
        return np.ascontiguousarray(found, dtype="<f8").tobytes()

    def _booster(self, digest: str) -> Any:
        for name in UNUSED:
            sys.modules.setdefault(name, None)  # type: ignore[arg-type]
        import lightgbm

        if digest not in self._boosters:
            _, files = read_checked(self._folder / digest, digest)
            self._boosters[digest] = lightgbm.Booster(model_str=files["model.txt"].decode())
            while len(self._boosters) > KEPT_MODELS:
                del self._boosters[next(iter(self._boosters))]
        return self._boosters[digest]


def serve(folder: Path, questions: BinaryIO, answers: BinaryIO) -> None:
    """Answer until there are no more questions."""
    models = _Models(folder)
    while head := questions.read(LENGTH.size):
        question = _decode(questions.read(LENGTH.unpack(head)[0]))
        try:
            answer = Answer(question.number, models.contributions(question))
        except Exception as error:
            answer = Answer(question.number, b"", type(error).__name__)
        answers.write(frame(answer))
        answers.flush()


if __name__ == "__main__":
    serve(Path(sys.argv[1]), sys.stdin.buffer, sys.stdout.buffer)
