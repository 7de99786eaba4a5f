"""How each part of a process is doing, in one page for people: what is open, how old, how far behind."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

from service.api.vitals import Vitals
from service.bootstrap import Runtime
from service.decision.experiment import CHALLENGER
from service.ports import StoreUnavailable


async def status_of(runtime: Runtime, vitals: Vitals, *, is_draining: bool) -> dict[str, Any]:
    """Return the state of a process; it asks the stores, and what does not answer is said and not waited for."""
    started = time.perf_counter()
    is_up = await runtime.state.ping()
    answered_ms = (time.perf_counter() - started) * 1000
    try:
        paused: int | None = len(await runtime.state.switches()) if is_up else None
    except StoreUnavailable:
        paused = None
    serving, settings = runtime.reloader.serving, runtime.settings
    model: dict[str, Any] | None = None
    catalogue: dict[str, Any] | None = None
    challenger: dict[str, Any] | None = None
    if serving is not None:
        manifest = settings.var / "models" / serving.bundle.digest / "manifest.json"
        model_age, file_age = await asyncio.gather(
            asyncio.to_thread(_age_seconds, manifest), asyncio.to_thread(_age_seconds, settings.catalogue)
        )
        model = {"version": serving.scorer.version, "bundle": serving.bundle.digest, "made_seconds_ago": model_age}
        if serving.challenger is not None:
            challenger = {
                "version": serving.challenger.scorer.version,
                "bundle": serving.challenger.bundle.digest,
                "arm_share": dict(serving.catalogue.catalogue.experiment.arms).get(CHALLENGER, 0.0),
            }
        catalogue = {"version": serving.catalogue.catalogue.version, "file_changed_seconds_ago": file_age}
    backlog = vitals.backlog
    return {
        "status": "draining" if is_draining else "serving" if serving is not None else "nothing loaded",
        "dependencies": {
            "store": {"is_up": is_up, "milliseconds": round(answered_ms, 3)},
            **{name: {"breaker": breaker.state} for name, breaker in runtime.breakers.items()},
        },
        "model": model,
        "challenger": challenger,
        "catalogue": catalogue,
        "journal": None if backlog is None else {"not_in_lake": backlog.records, "bytes": backlog.bytes},
        "paused": paused,
    }


def _age_seconds(path: Path) -> float | None:
    try:
        return max(time.time() - path.stat().st_mtime, 0.0)
    except OSError:
        return None
