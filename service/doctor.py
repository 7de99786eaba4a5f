"""`nba doctor`: what is configured, reachable, stale or dangerous on this machine, and what to do about each.

Decides what counts as wrong (exit code 1), as a warning, as fine. Reads only: it starts no server, makes no database
and changes nothing, so it may be run at any time beside a running service.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AsyncExitStack
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from features.version import features_version
from service.adapters.bundle_dir import MANIFEST, BundleDir, challenger_digest, current_digest
from service.adapters.clock import ClockFileError, OffsetClock, WallClock, open_clock
from service.adapters.embedded import EmbeddedServer
from service.api.keys import KeysError, read_keys
from service.bootstrap import feast_environment, redis_urls
from service.catalogue.loader import CatalogueError, load_catalogue
from service.ports import BundleRefused, Clock
from service.settings import CHECKOUT, Settings
from service.store_checks import LOOPBACK, Finding, check_facts, check_journal, check_server, plan_of

if TYPE_CHECKING:
    from service.model_agent import Registered

FREE_WARNING_GB, FREE_WRONG_GB = 2.0, 0.2
SAMPLE = 50
LOCK = CHECKOUT / "requirements-image.lock"
PYTHONS = ((3, 11), (3, 12))
Bad = Literal["warning", "wrong"]
LAKE_FOLDERS = ("decisions", "outcomes", "events")


def examine(settings: Settings) -> list[Finding]:
    """Look at everything; a check that itself fails is a finding."""
    found: list[Finding] = []
    checks: tuple[Callable[[Settings], Iterator[Finding]], ...] = (
        check_packages, check_var, check_keys, check_clock, check_catalogue, check_stores, check_registry,
        check_bundle, check_aliases, check_lake,
    )  # fmt: skip
    for check in checks:
        try:
            found += check(settings)
        except Exception as error:
            name = check.__name__.removeprefix("check_")
            said = f"could not be checked: {type(error).__name__}: {str(error).partition(chr(10))[0][:200]}"
            found.append(Finding(name, "wrong", said, "mend what the message names and run `nba doctor` again"))
    return found


def check_packages(settings: Settings) -> Iterator[Finding]:
    """Compare Python and the installed packages with the lock."""
    python = ".".join(map(str, sys.version_info[:3]))
    good = sys.version_info[:2] in PYTHONS
    yield Finding("python", "ok" if good else "wrong", python, "" if good else "use Python 3.11 or 3.12")
    if not LOCK.exists():
        yield Finding("packages", "warning", f"{LOCK.name} is not here, so nothing to compare with")
        return
    others = sorted(others_than(LOCK.read_text()))
    if others:
        more = f" and {len(others) - 5} more" if len(others) > 5 else ""
        remedy = "install from the lock file: `make test`, or build the image again"
        yield Finding("packages", "warning", f"not as locked: {', '.join(others[:5])}{more}", remedy)
    else:
        yield Finding("packages", "ok", f"as in {LOCK.name}")


def others_than(lock: str) -> Iterator[str]:
    """Yield each package that is missing or installed in another version than the lock's."""
    from packaging.requirements import Requirement

    for line in lock.splitlines():
        if not line[:1].isalnum():
            continue
        wanted = Requirement(line.rstrip(" \\"))
        if wanted.marker is not None and not wanted.marker.evaluate():
            continue
        try:
            installed = version(wanted.name)
        except PackageNotFoundError:
            yield f"{wanted.name} missing"
            continue
        if not wanted.specifier.contains(installed, prereleases=True):
            yield f"{wanted.name} {installed} (locked{wanted.specifier})"


def check_var(settings: Settings) -> Iterator[Finding]:
    """Say whether the folder of everything can be written and has room."""
    var = settings.var
    if not var.is_dir():
        yield Finding("var", "wrong", f"{var} is not there", "run `make train` (or `nba prepare`), or correct NBA_VAR")
        return
    try:
        with tempfile.TemporaryFile(dir=var) as probe:
            probe.write(b"\0" * 4096)
    except OSError as error:
        yield Finding("var", "wrong", f"{var} cannot be written ({error.strerror})", "give this user the folder")
        return
    free = shutil.disk_usage(var).free / 1e9
    status = "wrong" if free < FREE_WRONG_GB else "warning" if free < FREE_WARNING_GB else "ok"
    yield Finding("var", status, f"{var} is writable, {free:.1f} GB free", "" if status == "ok" else "free some room")  # type: ignore[arg-type]


def check_keys(settings: Settings) -> Iterator[Finding]:
    """Say who may call."""
    try:
        ring = read_keys(settings)
    except KeysError as error:
        yield Finding("API keys", "wrong", str(error), "make entries with `nba key new`")
        return
    if ring.keys:
        yield Finding("API keys", "ok", f"{len(ring.keys)} on {settings.host}:{settings.port}")
    elif settings.host in LOOPBACK:
        yield Finding("API keys", "ok", f"none; {settings.host} is reached from this machine only")
    else:
        remedy = "set NBA_API_KEYS (see `nba key new`), or NBA_HOST=127.0.0.1"
        yield Finding("API keys", "wrong", f"none, and {settings.host} is reached from elsewhere", remedy)
    dotenv = Path(".env")
    if dotenv.exists() and dotenv.stat().st_mode & 0o044 and "=" in dotenv.read_text():
        yield Finding(".env", "warning", "other users of this machine can read it", "chmod 600 .env")


def check_clock(settings: Settings) -> Iterator[Finding]:
    """Say whose time it is."""
    try:
        clock = clock_of(settings)
    except ClockFileError as error:
        yield Finding("clock", "wrong", str(error), "rewrite or remove the file")
        return
    now = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(clock.now()))
    if isinstance(clock, WallClock):
        yield Finding("clock", "ok", f"the machine's: {now}")
        return
    kind = "moved by a fixed offset" if isinstance(clock, OffsetClock) else "simulated"
    yield Finding("clock", "warning", f"{kind}: {now}", "for real customers: NBA_CLOCK=wall, or remove var/clock.json")


def clock_of(settings: Settings) -> Clock:
    """Return the clock that the service would use."""
    return open_clock(settings.var / "clock.json") if settings.clock == "auto" else WallClock()


def check_catalogue(settings: Settings) -> Iterator[Finding]:
    """Load the catalogue as serving would."""
    try:
        catalogue = load_catalogue(settings.catalogue)
    except (CatalogueError, OSError) as error:
        remedy = "`nba catalogue check` lists all; a running service goes on with the last good one"
        yield Finding("catalogue", "wrong", str(error).splitlines()[0][:300], remedy)
        return
    yield Finding(
        "catalogue", "ok", f"{catalogue.version}: {len(catalogue.actions)} actions, {len(catalogue.caps)} caps"
    )


def check_stores(settings: Settings) -> Iterator[Finding]:
    """Ask both stores, the journal, and for the facts of some customers."""
    if settings.redis_url is None and not is_embedded_running(settings):
        found = "embedded, not running: it starts with the first process that needs it"
        yield Finding("redis", "warning", found, "start `make serve` and `make worker`, then look again")
        return
    yield from asyncio.run(_ask_stores(settings))


async def _ask_stores(settings: Settings) -> list[Finding]:
    async with AsyncExitStack() as stack:
        features_url, state_url = redis_urls(settings, stack)
        same = features_url == state_url
        found = [] if same else await check_server("features", features_url, keeps_state=False)
        found += await check_server("state" if not same else "features and state", state_url, keeps_state=True)
        if all(finding.status != "wrong" or "does not answer" not in finding.found for finding in found):
            found += await check_journal(state_url, settings.lake_seconds)
            digest, customers = current_digest(settings.var / "models"), some_customers(settings.lake)
            if digest and customers and settings.fact_reader == "redis":
                plan = plan_of(settings.var / "models" / digest)
                channel = load_catalogue(settings.catalogue).channels[0]
                found.append(
                    await check_facts(features_url, state_url, plan, customers, channel, clock_of(settings).now())
                )
        return found


def is_embedded_running(settings: Settings) -> bool:
    """Say whether the embedded server runs, without making its folder."""
    return (settings.var / "redis" / "server.lock").exists() and EmbeddedServer(settings.var).is_running()


def some_customers(lake: Path) -> list[str]:
    """Return a few customers that the lake has facts of."""
    import duckdb

    files = sorted(lake.glob("facts/*/*.parquet"))
    if not files:
        return []
    query = "SELECT DISTINCT customer_id FROM read_parquet(?) ORDER BY hash(customer_id) LIMIT ?"
    return [customer for (customer,) in duckdb.execute(query, [str(files[-1]), SAMPLE]).fetchall()]


def check_registry(settings: Settings) -> Iterator[Finding]:
    """Compare Feast's registry with the feature contract."""
    from service.adapters.bundle_dir import check_plan, read_plan
    from service.adapters.feast_plan import resolve_plan
    from service.model_agent import FEATURE_REPO

    path = settings.var / "registry.db"
    if not path.exists():
        yield Finding("Feast registry", "wrong", f"{path} is not there", "`nba apply`")
        return
    os.environ.update(feast_environment(settings, "redis://127.0.0.1:1"))
    try:
        check_plan(read_plan(resolve_plan(FEATURE_REPO, f"sqlite:///{path}")))
    except Exception as error:
        yield Finding("Feast registry", "wrong", f"{type(error).__name__}: {str(error)[:200]}", "`nba apply`")
        return
    yield Finding("Feast registry", "ok", f"as the contract, version {features_version()}")


def check_bundle(settings: Settings) -> Iterator[Finding]:
    """Load the bundles in use as serving would."""
    models = settings.var / "models"
    digest, challenger = current_digest(models), challenger_digest(models)
    if digest is None:
        yield Finding("bundle", "wrong", "none was made yet", "`nba agent --once`, after `nba prepare`")
    else:
        yield _loaded("bundle", "wrong", models, digest)
    if challenger is not None:
        yield _loaded("challenger's bundle", "warning", models, challenger)


def _loaded(what: str, bad: Bad, models: Path, digest: str) -> Finding:
    try:
        bundle = BundleDir(models).load(digest)
    except BundleRefused as error:
        return Finding(what, bad, str(error)[:300], "`nba agent --once` makes it again")
    days = (time.time() - (models / digest / MANIFEST).stat().st_mtime) / 86_400
    return Finding(what, "ok", f"{digest[:12]} of {bundle.model_version}, made {days:.1f} days ago")


def check_aliases(settings: Settings) -> Iterator[Finding]:
    """Compare the bundles in use with MLflow's champion and challenger."""
    uri = settings.mlflow_uri
    if uri.startswith("sqlite:///") and not Path(uri.removeprefix("sqlite:///")).exists():
        yield Finding("MLflow", "wrong", "its database is not there", "`nba prepare`, or correct NBA_MLFLOW_URI")
        return
    from service import model_agent

    try:
        champion, challenger = (model_agent.registered(uri, alias) for alias in ("champion", "challenger"))
    except Exception as error:
        remedy = "start it or correct NBA_MLFLOW_URI; serving goes on with the bundle in use"
        yield Finding("MLflow", "warning", f"does not answer ({type(error).__name__})", remedy)
        return
    models = settings.var / "models"
    refused = model_agent.read_refused(models)
    if champion is None:
        yield Finding("champion", "wrong", "no version has the alias champion", "`nba train`")
    else:
        remedy = "train again, or move the alias back; the bundle in use goes on"
        yield _followed("champion", champion, models, current_digest(models), refused, "wrong", remedy)
    if challenger is not None and challenger != champion:
        remedy = "train again; its customers are the champion's meanwhile"
        yield _followed("challenger", challenger, models, challenger_digest(models), refused, "warning", remedy)
    if refused:
        yield Finding("refused models", "warning", f"{len(refused)}; see var/models/refused.json")


def _followed(
    alias: str,
    version: Registered,
    models: Path,
    digest: str | None,
    refused: Mapping[str, str],
    bad: Bad,
    remedy: str,
) -> Finding:
    """Say whether the bundle of an alias is that of its version."""
    manifest: dict[str, Any] = json.loads((models / digest / MANIFEST).read_bytes()) if digest else {}
    if (manifest.get("model_version"), manifest.get("source")) == (version.name, version.source):
        return Finding(alias, "ok", f"{version.name}, and the bundle in use is made from it")
    mark = f"{version.name} {version.source} "
    for refusal, why in refused.items():
        if refusal.startswith(mark):
            return Finding(alias, bad, f"{version.name} was refused: {why[:200]}", remedy)
    said = f"{version.name}, but {manifest.get('model_version', 'nothing')} serves"
    return Finding(alias, "warning", said, "is `nba agent` running? once by hand: `nba agent --once`")


def check_lake(settings: Settings) -> Iterator[Finding]:
    """Say when the lake was last written."""
    times = [file.stat().st_mtime for folder in LAKE_FOLDERS for file in (settings.lake / folder).rglob("*.parquet")]
    if not times:
        yield Finding("lake", "warning", "no decision, outcome or event in it yet", "is `nba worker` running?")
        return
    minutes = (time.time() - max(times)) / 60
    yield Finding("lake", "ok", f"{len(times)} files, last written {minutes:.0f} minutes ago")


def as_json(found: list[Finding]) -> str:
    """Return the findings for machines."""
    return json.dumps({"healthy": is_healthy(found), "findings": [asdict(finding) for finding in found]}, indent=1)


def is_healthy(found: list[Finding]) -> bool:
    """Say whether nothing is wrong."""
    return all(finding.status != "wrong" for finding in found)
