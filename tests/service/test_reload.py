"""A catalogue that changes on disk is taken whole, once it is settled, or not at all; the one in use goes on."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from service.adapters.bundle_dir import BundleDir
from service.online import Serving
from service.ports import Bundle
from service.reloader import Reloader
from tests.service.decision.worlds import SMALL, TableScorer
from tests.service.rows import plan_by_hand

TEXT = SMALL.read_text(encoding="utf-8")
OTHER = TEXT.replace("limit: 2, days: 7", "limit: 3, days: 7")


class Disk:
    """A catalogue on disk that a reloader follows, and what it told."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "catalogue.yaml"
        self.path.write_text(TEXT, encoding="utf-8")
        self.told: list[tuple[str, str]] = []
        bundle = Bundle("table/1", "d" * 64, "f1", plan_by_hand(), lambda _: TableScorer(8))
        self.reloader = Reloader(self.path, BundleDir(folder / "models"), on_reload=self._note, _bundle=bundle)
        self.reloader.look()

    def _note(self, kind: str, result: str, serving: Serving | None) -> None:
        self.told.append((kind, result))

    def limit(self) -> int:
        """Look once and return a number that tells the catalogues apart."""
        self.reloader.look()
        assert self.reloader.serving is not None
        return {cap.id: cap.limit for cap in self.reloader.serving.catalogue.catalogue.caps}["two_a_week"]


@pytest.fixture
def disk(tmp_path: Path) -> Disk:
    return Disk(tmp_path)


def test_a_change_is_taken_once_it_is_settled(disk: Disk) -> None:
    """A file that still grows is left alone; once it has looked the same twice it is loaded, and once only."""
    assert disk.told == [("catalogue", "loaded"), ("serving", "swapped")]
    for size in (len(OTHER) // 4, len(OTHER) // 2, len(OTHER) - 30, len(OTHER)):
        disk.path.write_text(OTHER[:size], encoding="utf-8")
        assert disk.limit() == 2
    assert [disk.limit() for _ in range(3)] == [3, 3, 3]
    assert disk.told[2:] == [("catalogue", "loaded"), ("serving", "swapped")]


@pytest.mark.parametrize(
    "broken",
    [OTHER.replace("issue: retention,", "issue: retenton,"), OTHER[: len(OTHER) // 2], "", "\x00", OTHER.rstrip("\n")],
    ids=["typo", "cut off", "empty", "not YAML", "cut off at the last line"],
)
def test_a_broken_one_is_refused_once_and_the_old_goes_on(disk: Disk, broken: str) -> None:
    """A catalogue with a mistake changes nothing and is reported once; mended, it is taken."""
    disk.path.write_text(broken, encoding="utf-8")
    assert [disk.limit() for _ in range(4)] == [2, 2, 2, 2]
    assert disk.told[2:] == [("catalogue", "rejected")]
    disk.path.write_text(OTHER, encoding="utf-8")
    assert [disk.limit() for _ in range(2)] == [2, 3]


def test_a_file_that_is_gone_is_reported_once(disk: Disk) -> None:
    """Without the file the catalogue in use goes on; when it is back it is read again."""
    disk.path.unlink()
    assert [disk.limit() for _ in range(4)] == [2, 2, 2, 2]
    assert disk.told[2:] == [("catalogue", "rejected")]
    disk.path.write_text(OTHER, encoding="utf-8")
    assert [disk.limit() for _ in range(2)] == [2, 3]


def test_a_link_that_is_swapped_is_followed(tmp_path: Path, disk: Disk) -> None:
    """Where the path is a link, as of a mounted volume, another target is another catalogue."""
    for name, text in (("one", TEXT), ("other", OTHER)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "catalogue.yaml").write_text(text, encoding="utf-8")
    (tmp_path / "current").symlink_to("one")
    disk.path.unlink()
    disk.path.symlink_to("current/catalogue.yaml")
    assert [disk.limit() for _ in range(3)] == [2, 2, 2]
    (tmp_path / "next").symlink_to("other")
    os.replace(tmp_path / "next", tmp_path / "current")
    assert [disk.limit() for _ in range(3)] == [2, 3, 3]


def test_other_bytes_of_the_same_content_keep_the_version(disk: Disk) -> None:
    """A comment makes another file and no other version."""
    assert disk.reloader.serving is not None
    version = disk.reloader.serving.catalogue.catalogue.version
    disk.path.write_text("# a comment\n" + TEXT, encoding="utf-8")
    assert [disk.limit() for _ in range(2)] == [2, 2]
    assert disk.told[2:] == [("catalogue", "loaded"), ("serving", "swapped")]
    assert disk.reloader.serving.catalogue.catalogue.version == version
