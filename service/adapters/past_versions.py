"""Catalogues and models of then: what a logged decision has to be explained and made again with, while it is on disk.

Blocking: to be called in a thread. What serves now is not loaded a second time; of the past, little is kept in memory.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from features.matrix import Columns
from service.adapters.bundle_dir import BundleDir
from service.adapters.decision_log import CatalogueShelf
from service.catalogue.loader import CatalogueError
from service.decision.engine import CompiledCatalogue, compile_catalogue
from service.decision.model import Scorer
from service.online import Model, Serving
from service.ports import Bundle, BundleRefused

log = logging.getLogger("nba")
KEPT_CATALOGUES = 4


class PastVersions:
    """Finds versions by the names that a decision's row gives them.

    Args:
        serving: Returns what serves now.
    """

    def __init__(self, shelf: CatalogueShelf, bundles: BundleDir, serving: Callable[[], Serving | None]) -> None:
        self._shelf, self._bundles, self._serving = shelf, bundles, serving
        self._catalogues: dict[str, CompiledCatalogue] = {}
        self._bundle: Bundle | None = None
        self._lock = threading.Lock()

    def catalogue_of(self, version: str) -> CompiledCatalogue | None:
        """Return the catalogue of a version, or None where it is not kept or reads otherwise today."""
        serving = self._serving()
        if serving is not None and serving.catalogue.catalogue.version == version:
            return serving.catalogue
        with self._lock:
            if version not in self._catalogues:
                try:
                    found = self._shelf.find(version)
                    if found is None:
                        return None
                    self._catalogues[version] = compile_catalogue(found, Columns())
                except (CatalogueError, OSError) as error:
                    log.warning("catalogue %s cannot be read any more: %s", version, error)
                    return None
                while len(self._catalogues) > KEPT_CATALOGUES:
                    del self._catalogues[next(iter(self._catalogues))]
            return self._catalogues[version]

    def scorer_of(self, digest: str, catalogue: CompiledCatalogue) -> Scorer | None:
        """Return the scorer of a bundle for a catalogue, or None where the bundle is not on disk or cannot serve."""
        serving = self._serving()
        if serving is not None:
            for model in (Model(serving.bundle, serving.scorer), serving.challenger):
                if model is not None and model.bundle.digest == digest:
                    return model.scorer if serving.catalogue is catalogue else model.bundle.scorer_for(catalogue)
        with self._lock:
            if self._bundle is None or self._bundle.digest != digest:
                try:
                    self._bundle = self._bundles.load(digest)
                except BundleRefused as error:
                    log.warning("bundle %s cannot be loaded any more: %s", digest[:12], error)
                    return None
            return self._bundle.scorer_for(catalogue)
