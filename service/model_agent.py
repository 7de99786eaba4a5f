"""Follows champion and challenger in MLflow and turns each new version into a bundle; a process of its own.

Decides whether a version may become a bundle: fetched as text only, checked in a child process, its facts resolved
against Feast. A refused version leaves the bundle in use where it is. A challenger goes through the same checks and
never touches what the champion has. Serving processes know nothing of all this.
"""

from __future__ import annotations

import json
import logging
import os
import random
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from features.contract import REGISTERED_MODEL
from features.version import features_version
from service.adapters.bundle_dir import (
    MANIFEST,
    MAX_FILE_BYTES,
    challenger_digest,
    check_plan,
    current_digest,
    prune_bundles,
    read_checked,
    read_plan,
    set_challenger,
    set_current,
    write_bundle,
)
from service.adapters.feast_plan import resolve_plan
from service.adapters.model_check import check_in_child
from service.adapters.native_trees import compile_trees
from service.decision.record import EFFECT_FILES, FILES_TAG, files_digest
from service.ports import BundleRefused

logger = logging.getLogger(__name__)
CHAMPION, CHALLENGER = "champion", "challenger"
"""Aliases of the registered model."""
REFUSED = "refused.json"
FETCHED = {
    "model.txt": "model.lgb",
    "calibrator.json": "calibrator.json",
    "contract.json": "contract.json",
    "cold_start.json": "cold_start.json",
    "evidence.json": "evidence.json",
    "golden.json": "golden.json",
}
"""File of the bundle -> artifact of the version. plan.json is made here, nothing else is fetched but `EFFECT_FILES`."""
MLFLOW_ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "5",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
}
"""How this process uses MLflow where the environment does not say: its client's defaults wait for minutes."""
ASK_SECONDS, FETCH_SECONDS = 20.0, 120.0
"""In all, for the question which version is champion, and for its files."""
KEPT_BUNDLES, KEPT_SECONDS, KEPT_REFUSALS = 2, 86_400.0, 50
"""Bundles besides the current one, the age below which all stay, and reasons in refused.json, the newest."""
FEATURE_REPO = Path(__file__).resolve().parent.parent / "features"
Answer = TypeVar("Answer")
_asking = threading.Lock()


class NoArtifact(ValueError):
    """A version does not have a file."""


class Registered(NamedTuple):
    """A version that has an alias.

    Attributes:
        source: What the registry knows it by for good. digest: Of its files, as training wrote them; None: not told.
    """

    version: str
    source: str
    digest: str | None

    @property
    def name(self) -> str:
        """E.g. `nba-propensity/3`."""
        return f"{REGISTERED_MODEL}/{self.version}"


def sync_once(
    models: Path, mlflow_uri: str, feast_registry: str, feature_repo: Path = FEATURE_REPO, *, native: bool = False
) -> str | None:
    """Bring the bundle in use up to the champion.

    Args:
        models: Folder of bundles, `var/models`.
        mlflow_uri: Of tracking and registry.
        feast_registry: SQLAlchemy URL of Feast's registry, e.g. `sqlite:///var/registry.db`.
        feature_repo: Folder of feature_store.yaml.
        native: Compile the model's trees, too.

    Returns:
        The digest of the bundle in use now; None where there is none yet.

    Raises:
        BundleRefused: where the champion must not serve and was not refused before; the reason is in refused.json.
        Exception: of MLflow's or Feast's, where they cannot be reached; nothing was changed.
    """
    champion = _in_time(ASK_SECONDS, lambda: registered(mlflow_uri, CHAMPION))
    current = current_digest(models)
    if champion is None:
        return current
    digest = _bundle_of(champion, models, mlflow_uri, feast_registry, feature_repo, native=native)
    if digest is not None and digest != current:
        set_current(models, digest)
    if native and digest is None and current is not None:
        compile_trees(models / current / "model.txt")
    return digest or current


def sync_challenger(
    models: Path, mlflow_uri: str, feast_registry: str, feature_repo: Path = FEATURE_REPO, *, native: bool = False
) -> str | None:
    """Bring the challenger's bundle up to the alias; arguments as of `sync_once`.

    Without a challenger, with one that is the champion, or with one that must not serve there is none: its customers
    are then the champion's.

    Returns:
        The digest of the challenger's bundle now, or None.

    Raises:
        BundleRefused: where the challenger must not serve and was not refused before; the reason is in refused.json.
        Exception: of MLflow's or Feast's, where they cannot be reached; nothing was changed.
    """
    champion, challenger = _in_time(
        ASK_SECONDS, lambda: (registered(mlflow_uri, CHAMPION), registered(mlflow_uri, CHALLENGER))
    )
    if challenger is None or challenger == champion:
        set_challenger(models, None)
        return None
    try:
        digest = _bundle_of(challenger, models, mlflow_uri, feast_registry, feature_repo, native=native)
    except BundleRefused:
        set_challenger(models, None)
        raise
    if digest == current_digest(models):
        digest = None
    if digest != challenger_digest(models):
        set_challenger(models, digest)
    return digest


def _bundle_of(
    wanted: Registered, models: Path, mlflow_uri: str, feast_registry: str, feature_repo: Path, *, native: bool
) -> str | None:
    """Return the digest of a version's bundle, made now where there is none; None where it was refused before."""
    refused = read_refused(models)
    mark = f"{wanted.name} {wanted.source} {features_version()}"
    if mark in refused:
        return None
    for made in (current_digest(models), challenger_digest(models)):
        if made is not None and _is_made_from(models / made, wanted.name, wanted.source):
            if native:
                compile_trees(models / made / "model.txt")
            return made
    try:
        files = _fetch_checked(mlflow_uri, wanted.version, wanted.digest)
    except ValueError as error:
        _write_refused(models, {**refused, mark: str(error)})
        raise BundleRefused(f"{wanted.name}: {error}") from error
    plan = resolve_plan(feature_repo, feast_registry)
    check_plan(read_plan(plan))
    files["plan.json"] = json.dumps(plan, indent=1, sort_keys=True).encode()
    digest = write_bundle(models, files, wanted.name, wanted.source)
    if native:
        compile_trees(models / digest / "model.txt")
    logger.info("bundle %s made from %s", digest, wanted.name)
    return digest


def follow(
    models: Path,
    mlflow_uri: str,
    feast_registry: str,
    *,
    every_seconds: float = 5.0,
    stop: threading.Event | None = None,
    feature_repo: Path = FEATURE_REPO,
    native: bool = False,
) -> None:
    """Call `sync_once` and `sync_challenger` until `stop` is set; what fails is logged and tried again, ever slower."""
    stop = stop or threading.Event()
    wait = every_seconds
    while not stop.is_set():
        try:
            for sync in (sync_once, sync_challenger):
                try:
                    sync(models, mlflow_uri, feast_registry, feature_repo, native=native)
                except BundleRefused as error:
                    logger.error("refused, the bundle in use stays: %s", error)
            wait = every_seconds
            prune_bundles(models, keep=KEPT_BUNDLES, younger_seconds=KEPT_SECONDS, now=time.time())
        except Exception as error:  # an agent outlives whatever MLflow or Feast throw
            wait = min(wait * 2, 60.0)
            logger.warning("cannot follow the champion or the challenger, again in about %.0f s: %s", wait, error)
        stop.wait(wait * random.uniform(0.8, 1.2))


def _in_time(seconds: float, call: Callable[[], Answer]) -> Answer:
    """Return what a call to MLflow returns, within so many seconds in all: its client's own limit is for each read.

    Raises:
        TimeoutError: also where the call before, which was given up, has still not come back: one at a time.
        Exception: whatever the call raises.
    """
    if not _asking.acquire(blocking=False):
        raise TimeoutError("MLflow has not come back from the question before")
    found: list[Answer] = []
    failed: list[BaseException] = []

    def ask() -> None:
        try:
            found.append(call())
        except BaseException as error:  # handed to the caller
            failed.append(error)
        finally:
            _asking.release()

    asking = threading.Thread(target=ask, daemon=True, name="mlflow")
    asking.start()
    asking.join(seconds)
    if failed:
        raise failed[0]
    if not found:
        raise TimeoutError(f"MLflow did not answer within {seconds:g} s")
    return found[0]


def registered(mlflow_uri: str, alias: str) -> Registered | None:
    """Return the version that has an alias, or None where none has."""
    for name, value in MLFLOW_ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    client = MlflowClient(tracking_uri=mlflow_uri, registry_uri=mlflow_uri)
    try:
        version = client.get_model_version_by_alias(REGISTERED_MODEL, alias)
    except MlflowException as error:
        if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            return None
        raise
    return Registered(str(version.version), f"{version.source} {version.run_id}", version.tags.get(FILES_TAG))


def _fetch_checked(mlflow_uri: str, version: str, digest: str | None) -> dict[str, bytes]:
    """Fetch a version's files and check them in a child process; golden rows come back with this machine's bits.

    Args:
        digest: Of the files as training wrote them; None for a version that was registered without.
    """
    with tempfile.TemporaryDirectory(prefix="nba-agent-") as temporary:
        folder = Path(temporary)
        _in_time(FETCH_SECONDS, lambda: _fetch_all(mlflow_uri, version, folder))
        files = {name: (folder / name).read_bytes() for name in (*FETCHED, *EFFECT_FILES) if (folder / name).exists()}
        if digest is None:
            logger.warning("version %s has no tag %s: only its golden rows tell of damage", version, FILES_TAG)
        elif files_digest(files) != digest:
            raise ValueError(f"its files are not those that training wrote (tag {FILES_TAG}); register it again")
        documents = check_in_child(folder)
    return files | {name: json.dumps(document).encode() for name, document in documents.items()}


def _fetch_all(mlflow_uri: str, version: str, folder: Path) -> bool:
    for name, artifact in FETCHED.items():
        _fetch(mlflow_uri, f"models:/{REGISTERED_MODEL}/{version}/{artifact}", folder / name)
    with suppress(NoArtifact):  # most versions have no effect model; that both files came is told by the digest
        for name in EFFECT_FILES:
            _fetch(mlflow_uri, f"models:/{REGISTERED_MODEL}/{version}/{name}", folder / name)
    return True


def _fetch(mlflow_uri: str, uri: str, target: Path) -> None:
    import mlflow

    mlflow.set_tracking_uri(mlflow_uri)
    mlflow.set_registry_uri(mlflow_uri)
    with tempfile.TemporaryDirectory(dir=target.parent) as temporary:
        try:
            fetched = Path(mlflow.artifacts.download_artifacts(artifact_uri=uri, dst_path=temporary))
        except (OSError, mlflow.exceptions.MlflowException) as error:
            if isinstance(error, FileNotFoundError) or "No such" in str(error) or "not exist" in str(error):
                raise NoArtifact(f"the version has no {uri.rsplit('/', 1)[-1]}") from error
            raise
        if fetched.is_symlink() or not fetched.is_file() or fetched.stat().st_size > MAX_FILE_BYTES:
            raise ValueError(f"{fetched.name} is no plain file of at most {MAX_FILE_BYTES} bytes")
        fetched.rename(target)


def _is_made_from(folder: Path, name: str, source: str) -> bool:
    try:
        manifest: dict[str, Any] = json.loads((folder / MANIFEST).read_bytes())
        if (manifest["model_version"], manifest["source"]) != (name, source):
            return False
        read_checked(folder, folder.name)
    except (OSError, ValueError, KeyError, BundleRefused):
        return False
    return bool(manifest["features_version"] == features_version())


def read_refused(models: Path) -> dict[str, str]:
    """Return why versions were refused, by name, source and feature contract."""
    try:
        refused: dict[str, str] = json.loads((models / REFUSED).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return refused if isinstance(refused, dict) else {}


def _write_refused(models: Path, refused: dict[str, str]) -> None:
    models.mkdir(parents=True, exist_ok=True)
    new = models / f".{REFUSED}-{os.getpid()}"
    kept = dict(list(refused.items())[-KEPT_REFUSALS:])
    new.write_text(json.dumps(kept, indent=1), encoding="utf-8")
    os.replace(new, models / REFUSED)
