"""Follows what a process decides with: catalogue, champion's and challenger's bundle, swapped as one reference.

Decides when something is loaded and what stays where it cannot be. Knows files and bundles; no settings and no store.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from features.matrix import Columns
from service.adapters.bundle_dir import BundleDir
from service.adapters.decision_log import CatalogueShelf
from service.adapters.rule_shelf import RuleShelf
from service.catalogue.loader import CatalogueError, catalogue_of
from service.catalogue.symbols import parse
from service.catalogue.yaml_nodes import read_text
from service.decision.engine import CompiledCatalogue, compile_catalogue
from service.online import Model, Serving
from service.ports import Bundle, BundleRefused

log = logging.getLogger("nba")
SWITCH_SECONDS = 0.0005


@dataclass
class Reloader:
    """Follows the bundles and the catalogue file; swaps one reference; keeps the old one on any error.

    A catalogue that changes is read once it has looked the same twice, so that nobody's half-written file is taken.
    """

    catalogue_path: Path
    bundles: BundleDir
    shelf: CatalogueShelf | None = None
    rules: RuleShelf | None = None
    on_reload: Callable[[str, str, Serving | None], None] = lambda kind, result, serving: None
    serving: Serving | None = None
    _catalogue: CompiledCatalogue | None = None
    _seen: tuple[int, ...] | None = None
    _read: tuple[int, ...] | None = None
    _bundle: Bundle | None = None
    _challenger: Bundle | None = None
    _refused: dict[str, tuple[int, int] | None] = field(default_factory=dict)

    def look(self) -> None:
        """Load what changed, then swap. Blocking: for the start, before anything is answered."""
        found = self.find()
        if found is not None:
            self.swap(found)

    async def follow(self, every_seconds: float) -> None:
        """Look again and again: load in a thread, swap on the event loop, where no request can stand half way."""
        while True:
            await asyncio.sleep(every_seconds)
            try:
                found = await asyncio.to_thread(self.find)
                if found is not None:
                    self.swap(found)
            except Exception:  # a defect in loading must not end the following of later versions
                log.exception("loading failed, what serves goes on")

    def find(self) -> Serving | None:
        """Return what should serve from now on, or None where nothing changed. Blocking: runs in a thread."""
        before = sys.getswitchinterval()
        sys.setswitchinterval(SWITCH_SECONDS)  # decisions go on meanwhile, and should not wait long for this thread
        try:
            changed = self._look_for_catalogue() | self._look_for_bundle() | self._look_for_challenger()
            if not (changed and self._catalogue and self._bundle):
                return None
            champion, challenger = Model.of(self._bundle, self._catalogue), None
            if self._challenger is not None:
                challenger = Model.of(self._challenger, self._catalogue)
            return Serving(self._catalogue, champion.bundle, champion.scorer, challenger)
        finally:
            sys.setswitchinterval(before)

    def swap(self, serving: Serving) -> None:
        """Let it serve; decisions that have begun end with what they began with."""
        self.serving = serving
        self.on_reload("serving", "swapped", serving)

    def _look_for_catalogue(self) -> bool:
        stamp = _stamp(self.catalogue_path)
        is_settled, self._seen = self._catalogue is None or stamp == self._seen, stamp
        if stamp == self._read or not is_settled:
            return False
        self._read = stamp
        try:
            text = read_text(self.catalogue_path)  # once: what is kept is what was loaded
            read_rule = parse if self.rules is None else self.rules.read
            catalogue = catalogue_of(text, str(self.catalogue_path), read_rule=read_rule)
            self._catalogue = compile_catalogue(catalogue, Columns())
            self._keep(text.encode(), self._catalogue.catalogue.version)
        except (CatalogueError, OSError) as error:
            log.error("catalogue refused, the one in use goes on: %s", error)
            self.on_reload("catalogue", "rejected", None)
            return False
        self.on_reload("catalogue", "loaded", None)
        return True

    def _keep(self, text: bytes, version: str) -> None:
        try:
            if self.rules is not None:
                self.rules.keep()
            if self.shelf is not None:
                self.shelf.keep(text, version)
        except OSError as error:  # explaining old decisions may suffer, deciding must not
            log.warning("catalogue %s could not be kept: %s", version, error)

    def _look_for_bundle(self) -> bool:
        digest = self.bundles.current()
        if digest is None or (self._bundle and digest == self._bundle.digest):
            return False
        if self._challenger is not None and digest == self._challenger.digest:  # promoted: it is loaded already
            self._bundle, self._challenger = self._challenger, None
            return True
        for candidate in (digest, *(self.bundles.others(digest) if self._bundle is None else ())):
            found = self._load("bundle", candidate)
            if found is not None:
                self._bundle = found
                return True
        return False

    def _look_for_challenger(self) -> bool:
        digest, before = self.bundles.challenger(), self._challenger
        if self._bundle is None or digest in (None, self._bundle.digest):
            self._challenger = None
        elif before is None or before.digest != digest:
            self._challenger = self._load("challenger", str(digest))
        return self._challenger is not before

    def _load(self, kind: str, digest: str) -> Bundle | None:
        """Load a bundle; one that was refused is not tried again until it is made anew."""
        stamp = self.bundles.stamp(digest)
        if digest in self._refused and self._refused[digest] == stamp:
            return None
        try:
            found = self.bundles.load(digest)
        except BundleRefused as error:
            self._refused[digest] = stamp
            log.error("%s %s refused, what serves goes on: %s", kind, digest[:12], error)
            self.on_reload(kind, "rejected", None)
            return None
        self.on_reload(kind, "loaded", None)
        return found


def _stamp(path: Path) -> tuple[int, ...]:
    """Return what tells one state of a file from another, through links; () where there is none to see."""
    try:
        stat = path.stat()
    except OSError:
        return ()
    return (stat.st_ino, stat.st_mtime_ns, stat.st_size)
