"""The steps from the past to a registered model, each skipped while what it depends on has not changed.

Decides what is up to date: a step's digest covers its code, its parameters and the digest of the steps before it; the
stamp of the last run is kept under `var/stamps`. Knows nothing of what a step does.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from rich.console import Console

CHECKOUT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True, slots=True)
class Step:
    """One step.

    Attributes:
        code: Files, relative to the checkout, whose content decides the result.
        parameters: Whatever else does.
        outputs: What must exist afterwards.
        run: Does it and returns one line for people.
    """

    name: str
    title: str
    code: tuple[str, ...]
    parameters: tuple[str, ...]
    outputs: tuple[Path, ...]
    run: Callable[[], str]


def digests(steps: Sequence[Step]) -> Iterator[tuple[Step, str]]:
    """Yield each step with its digest, which changes when its own inputs or those of a step before it change."""
    chained = sha256()
    for step in steps:
        chained.update(json.dumps([step.name, step.parameters]).encode())
        for name in step.code:
            chained.update((CHECKOUT / name).read_bytes())
        yield step, chained.hexdigest()


def run_steps(steps: Sequence[Step], stamps: Path, console: Console, *, only: str | None = None) -> list[str]:
    """Run the steps that are not up to date, in order; with `only`, run that one whatever its stamp says.

    Returns:
        The names of the steps that ran.
    """
    stamps.mkdir(parents=True, exist_ok=True)
    ran = []
    for step, digest in digests(steps):
        stamp = stamps / f"{step.name}.json"
        if only is None and is_up_to_date(step, digest, stamp):
            console.print(f"  [dim]{step.title}: unchanged, skipped[/dim]")
            continue
        if only not in (None, step.name):
            continue
        started = time.monotonic()
        said = step.run()
        console.print(f"  {step.title}: {said} ({time.monotonic() - started:.1f} s)", highlight=False, soft_wrap=True)
        _stamp(stamp, digest)
        ran.append(step.name)
        if only is not None:
            break
    return ran


def is_up_to_date(step: Step, digest: str, stamp: Path) -> bool:
    """Say whether the step's last run had the same inputs and its outputs are still there."""
    try:
        last = json.loads(stamp.read_text())
    except (OSError, ValueError):
        return False
    return last.get("digest") == digest and all(output.exists() for output in step.outputs)


def _stamp(stamp: Path, digest: str) -> None:
    partial = stamp.with_name(f".{stamp.name}.{os.getpid()}")
    partial.write_text(json.dumps({"digest": digest, "at": time.time()}))
    partial.replace(stamp)
