"""Compiled trees: as fast as native code, right to the bit, and never of unknown origin."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path

import numpy as np
import pytest

from service.adapters.native_trees import LIBRARY, compile_trees, is_trusted
from service.adapters.scoring import Golden, open_lignum, open_native, open_predictor
from tests.small_world import SmallWorld

pytest.importorskip("lignum")
needs_compiler = pytest.mark.skipif(shutil.which("cc") is None, reason="there is no C compiler")


@pytest.fixture
def folder(small_world: SmallWorld, tmp_path: Path) -> Path:
    copy = tmp_path / small_world.digest
    shutil.copytree(small_world.models / small_world.digest, copy)
    copy.chmod(0o755)
    return copy


def golden_of(folder: Path) -> Golden:
    return Golden.from_document(json.loads((folder / "golden.json").read_text()))


@needs_compiler
def test_compiled_trees_give_the_golden_scores_to_the_bit(folder: Path) -> None:
    """The library is made beside the model, trusted, and predicts what the interpreter does; nothing else is left."""
    before = {file.name for file in folder.iterdir()}
    library = compile_trees(folder / "model.txt")
    assert library == folder / LIBRARY
    assert {file.name for file in folder.iterdir()} - before == {LIBRARY}
    golden = golden_of(folder)
    native = open_native(folder / "model.txt", golden)
    plain = open_lignum(folder / "model.txt")
    assert native is not None
    assert plain is not None
    np.testing.assert_array_equal(native(golden.rows), golden.raw)
    rows = np.random.default_rng(0).normal(0, 50, (200, golden.rows.shape[1]))
    np.testing.assert_array_equal(native(rows), plain(rows))


@pytest.mark.parametrize(
    "what", ["not there", "no library", "others may write it", "others may write the folder", "link"]
)
def test_what_cannot_be_trusted_is_not_loaded(folder: Path, what: str, caplog: pytest.LogCaptureFixture) -> None:
    """Without a sound library that only this user could have written, the interpreter scores, and the log says why."""
    library, golden = folder / LIBRARY, golden_of(folder)
    if what != "not there":
        library.write_bytes(b"\x7fELF and then nothing")
        library.chmod(0o722 if what == "others may write it" else 0o700)
    if what == "link":
        library.rename(folder / "elsewhere.so")
        library.symlink_to(folder / "elsewhere.so")
    if what == "others may write the folder":
        folder.chmod(0o777)
    assert is_trusted(library) == (what == "no library")
    with caplog.at_level(logging.WARNING):
        predict = open_predictor(folder / "model.txt", golden, native=True)
    np.testing.assert_array_equal(predict(golden.rows), golden.raw)
    assert ("compiled trees are not used" in caplog.text) == (what != "not there")


def test_nobody_loads_a_library_unasked(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the setting nothing beside the bundle's own files is even looked at."""
    monkeypatch.setattr("service.adapters.scoring.open_native", lambda *_: pytest.fail("looked for compiled trees"))
    golden = golden_of(folder)
    np.testing.assert_array_equal(open_predictor(folder / "model.txt", golden)(golden.rows), golden.raw)
