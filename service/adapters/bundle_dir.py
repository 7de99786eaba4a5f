"""Bundles as folders: `<models>/<digest>/` with text files and a manifest; `<models>/current` names one of them.

`<models>/challenger` names another one where there is a challenger: never the same, and gone where there is none.

Decides whether a bundle may serve: every file by its SHA-256, the contract against this code's, the golden rows through
the very engine that will serve. Unpickles nothing and knows neither MLflow nor Feast.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Collection, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from features.matrix import Columns
from features.version import describe_contract, features_version
from service.adapters.durable import sync_folder, write_synced
from service.adapters.scoring import Golden, open_predictor
from service.decision.bundle_scorer import BundleScorer, ColdStart, Domain, EffectModel
from service.decision.calibration import Calibrator
from service.decision.model import ISSUES
from service.decision.record import BUNDLE_FILES, EFFECT_FILES
from service.ports import Bundle, BundleRefused, FactPlan

MANIFEST = "manifest.json"
CURRENT, CHALLENGER = "current", "challenger"
MAX_FILE_BYTES = 256 * 1024 * 1024
_DIGEST = re.compile(r"[0-9a-f]{32}")


def digest_of(manifest: bytes) -> str:
    """Return the 32 hex digits that name the bundle with this manifest."""
    return hashlib.sha256(manifest).hexdigest()[:32]


def write_bundle(models: Path, files: Mapping[str, bytes], model_version: str, source: str) -> str:
    """Write a bundle so that it is either whole or not there, and return its digest.

    Args:
        models: Folder of bundles; made where it is missing.
        files: The content of each of `BUNDLE_FILES`, and of `EFFECT_FILES` where the version has an effect model.
        model_version: E.g. `nba-propensity/3`.
        source: What the registry knows this model by for good; version numbers start anew with a new registry.
    """
    manifest = {
        "model_version": model_version,
        "source": source,
        "features_version": features_version(),
        "files": {name: hashlib.sha256(files[name]).hexdigest() for name in _names(files)},
    }
    manifest_bytes = json.dumps(manifest, indent=1, sort_keys=True).encode()
    digest = digest_of(manifest_bytes)
    models.mkdir(parents=True, exist_ok=True)
    target = models / digest
    if target.exists() and _is_whole(target):
        return digest
    folder = Path(tempfile.mkdtemp(prefix=".new-", dir=models))
    try:
        for name in _names(files):
            write_synced(folder / name, files[name])
        write_synced(folder / MANIFEST, manifest_bytes)
        sync_folder(folder)
        folder.chmod(0o755)
        if target.exists():  # a damaged one under our name: set aside, since a folder cannot be replaced in one step
            target.rename(Path(tempfile.mkdtemp(prefix=".damaged-", dir=models)) / digest)
        folder.rename(target)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    sync_folder(models)
    return digest


def set_current(models: Path, digest: str) -> None:
    """Name the bundle that should be served from now on, in one step; a challenger that takes over is none any more."""
    if _named(models, CHALLENGER) == digest:
        set_challenger(models, None)
    _name(models, CURRENT, digest)


def set_challenger(models: Path, digest: str | None) -> None:
    """Name the bundle that serves the challenger's arm from now on; None for none."""
    if digest is not None:
        _name(models, CHALLENGER, digest)
    elif (models / CHALLENGER).exists():
        (models / CHALLENGER).unlink(missing_ok=True)
        sync_folder(models)


def current_digest(models: Path) -> str | None:
    """Return the digest that `current` names, or None where there never was one or the text is no digest."""
    return _named(models, CURRENT)


def challenger_digest(models: Path) -> str | None:
    """Return the digest of the challenger's bundle, or None where there is none beside the current one."""
    found = _named(models, CHALLENGER)
    return None if found == _named(models, CURRENT) else found


def _name(models: Path, pointer: str, digest: str) -> None:
    new = models / f".{pointer}-{os.getpid()}"
    write_synced(new, digest.encode() + b"\n")
    os.replace(new, models / pointer)
    sync_folder(models)


def _named(models: Path, pointer: str) -> str | None:
    try:
        text = (models / pointer).read_text(encoding="ascii").strip()
    except (FileNotFoundError, NotADirectoryError, UnicodeDecodeError):
        return None
    return text if _DIGEST.fullmatch(text) else None


def bundles_by_age(models: Path) -> tuple[str, ...]:
    """Return the digests of the bundles in a folder, the youngest first."""
    dated = []
    for folder in models.iterdir() if models.is_dir() else ():
        with suppress(OSError):
            if _DIGEST.fullmatch(folder.name):
                dated.append(((folder / MANIFEST).stat().st_mtime_ns, folder.name))
    return tuple(name for _, name in sorted(dated, reverse=True))


def prune_bundles(models: Path, *, keep: int, younger_seconds: float, now: float) -> tuple[str, ...]:
    """Delete old bundles and what a broken-off write left; return the digests of those deleted.

    Args:
        keep: So many besides the current one and the challenger's stay, the youngest.
        younger_seconds: What is younger than this stays too: a serving process may be about to load it.
        now: Unix seconds.
    """
    in_use = (current_digest(models), challenger_digest(models))
    kept = [name for name in bundles_by_age(models) if name not in in_use]
    pruned = []
    for name in kept[keep:]:
        if now - (models / name / MANIFEST).stat().st_mtime > younger_seconds:
            shutil.rmtree(models / name, ignore_errors=True)
            pruned.append(name)
    for folder in (*models.glob(".new-*"), *models.glob(".damaged-*")):
        with suppress(OSError):
            if now - folder.stat().st_mtime > younger_seconds:
                shutil.rmtree(folder, ignore_errors=True)
    return tuple(pruned)


def read_plan(document: Mapping[str, Any]) -> FactPlan:
    """Read a plan from plan.json; hash fields and key parts are hex there."""
    return FactPlan(
        bytes.fromhex(document["key_prefix"]),
        bytes.fromhex(document["key_suffix"]),
        {bytes.fromhex(field): name for field, name in document["fields"].items()},
        {bytes.fromhex(field): view for field, view in document["timestamps"].items()},
    )


def check_plan(plan: FactPlan) -> None:
    """Raise ValueError unless the plan reads each fact and each view of the contract exactly once."""
    contract = describe_contract()
    facts = sorted(fact["name"] for view in contract["views"] for fact in view["facts"])
    views = sorted(view["name"] for view in contract["views"])
    if sorted(plan.fields.values()) != facts or sorted(plan.timestamps.values()) != views:
        raise ValueError("the read plan does not cover the feature contract's facts one to one")


def check_contract(document: Mapping[str, Any]) -> None:
    """Raise ValueError unless the model was trained on the feature contract of this code."""
    ours = describe_contract()
    theirs = document["features"]
    for part in ours:
        if theirs.get(part) != ours[part]:
            raise ValueError(
                f"it was trained on another feature contract: {part} differs "
                f"(bundle {document.get('features_version')}, code {features_version()}); train and register again"
            )


class BundleDir:
    """Implements `service.ports.BundleSource` over a folder of bundles.

    Args:
        native: Score with the compiled trees of a bundle, where it has them.
    """

    def __init__(self, models: Path, *, native: bool = False) -> None:
        self._models, self._native = models, native

    def current(self) -> str | None:
        """Return the digest that should be served now, or None where there never was one."""
        return current_digest(self._models)

    def challenger(self) -> str | None:
        """Return the digest that should serve the challenger's arm now, or None where there is none."""
        return challenger_digest(self._models)

    def stamp(self, digest: str) -> tuple[int, int] | None:
        """Return what changes when the bundle of this digest is made anew, or None where there is none."""
        try:
            stat = (self._models / digest).stat()
        except OSError:
            return None
        return stat.st_ino, stat.st_mtime_ns

    def others(self, digest: str) -> tuple[str, ...]:
        """Return the other bundles on disk: what to boot from where the current one is damaged.

        The youngest first; the challenger's last, since nobody has let it through to serve everybody.
        """
        others = [found for found in bundles_by_age(self._models) if found != digest]
        return tuple(sorted(others, key=lambda found: found == self.challenger()))

    def load(self, digest: str) -> Bundle:
        """Load, warm and check a bundle against its golden rows.

        Raises:
            BundleRefused: with the reason; the one in use goes on serving.
        """
        try:
            return self._load(digest)
        except BundleRefused:
            raise
        except (OSError, ValueError, KeyError, TypeError, IndexError, AttributeError, RuntimeError) as error:
            detail = f"{type(error).__name__}: {error}" if not isinstance(error, ValueError) else str(error)
            raise BundleRefused(f"bundle {digest}: {detail}") from error

    def _load(self, digest: str) -> Bundle:
        if not _DIGEST.fullmatch(digest):
            raise BundleRefused("a bundle's digest is 32 hex digits")
        folder = self._models / digest
        manifest, files = read_checked(folder, digest)
        documents = {name: json.loads(content) for name, content in files.items() if name.endswith(".json")}
        contract = documents["contract.json"]
        check_contract(contract)
        plan = read_plan(documents["plan.json"])
        check_plan(plan)
        calibrator = Calibrator.from_document(documents["calibrator.json"])
        golden = Golden.from_document(documents["golden.json"])
        columns = Columns()
        predict = open_predictor(folder / "model.txt", golden, native=self._native)
        _check_golden(predict(golden.rows), golden, calibrator)
        version = f"{manifest['model_version']}@{digest[:12]}"
        make_scorer = partial(
            BundleScorer,
            version=version,
            predict=predict,
            calibrator=calibrator,
            cold_start=ColdStart.from_document(documents["cold_start.json"]),
            evidence=documents["evidence.json"],
            domain=Domain.from_contract(contract),
            columns=columns,
            effect=_open_effect(folder / "uplift.txt", documents["uplift.json"])
            if "uplift.json" in documents
            else None,
        )
        return Bundle(manifest["model_version"], digest, manifest["features_version"], plan, make_scorer)


def read_checked(folder: Path, digest: str) -> tuple[dict[str, Any], dict[str, bytes]]:
    """Read a bundle's files.

    Raises:
        BundleRefused: where one is missing, too large, or not what the manifest says.
    """
    manifest_bytes = _read(folder / MANIFEST)
    if digest_of(manifest_bytes) != digest:
        raise BundleRefused(f"bundle {digest}: {MANIFEST} is not the one it was named after; fetch the bundle again")
    manifest = json.loads(manifest_bytes)
    files = {}
    for name in _names(manifest["files"]):
        files[name] = _read(folder / name)
        if hashlib.sha256(files[name]).hexdigest() != manifest["files"][name]:
            raise BundleRefused(f"bundle {digest}: {name} is damaged (its SHA-256 is another); fetch the bundle again")
    return manifest, files


def _names(files: Collection[str]) -> tuple[str, ...]:
    """Return the files that a bundle has: all of `BUNDLE_FILES`, and both of `EFFECT_FILES` where one is there."""
    return (*BUNDLE_FILES, *(EFFECT_FILES if EFFECT_FILES[0] in files else ()))


def _open_effect(model: Path, document: Mapping[str, Any] | None) -> EffectModel | None:
    """Open the effect booster, if any, with the engine that gives its golden scores to the bit."""
    if document is None:
        return None
    return EffectModel.from_document(document, open_predictor(model, Golden.from_document(document["golden"])))


def _check_golden(raw: Any, golden: Golden, calibrator: Calibrator) -> None:
    issues = golden.rows[:, describe_contract()["model_inputs"].index("issue")]
    if not (np.isin(issues, np.arange(len(ISSUES)))).all():
        raise ValueError("a golden row has an unknown issue")
    worst = float(np.max(np.abs(calibrator.apply(raw, issues) - golden.probabilities)))
    if not worst <= 1e-9:
        raise ValueError(f"calibrated probabilities differ from the golden ones by {worst:.3g}")


def _is_whole(folder: Path) -> bool:
    try:
        read_checked(folder, folder.name)
    except (BundleRefused, OSError, ValueError, KeyError):
        return False
    return True


def _read(path: Path) -> bytes:
    if path.stat().st_size > MAX_FILE_BYTES:
        raise BundleRefused(f"{path.name} is larger than {MAX_FILE_BYTES} bytes")
    return path.read_bytes()
