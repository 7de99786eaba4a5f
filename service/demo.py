"""The show: prepare what is not there, start the service, ask it over HTTP as a channel would, and say what changed."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from features.contract import STAGES
from service.bootstrap import Runtime, all_customers, open_runtime
from service.settings import Settings

console = Console(width=None if sys.stdout.isatty() else 132)
COLUMNS = ("#", "action", "propensity", "source", "value", "priority", "P(selected)", "why")
WIDE = 120
CHUNK = 256
REFUSED = {"app": 7, "email": 5, "mailer": 11, "till": 13}
"""Fiction of the example: every n-th household refuses marketing on the channel; all others granted it."""


def run_demo(settings: Settings, *, once: bool) -> None:
    """Run the whole pipe and the show; keep serving until Ctrl-C unless `once`."""
    started = time.monotonic()
    heading("1  Prepare: history, facts, Feast, model, bundle (what did not change is skipped)")
    command("prepare")
    follow_the_data(settings)
    command("agent", "--once")
    heading("2  Serve")
    with running("serve", settings), running("worker", settings):
        base = f"http://{settings.host}:{settings.port}"
        wait_until_ready(base)
        grant_consents(base, settings)
        customers = asyncio.run(one_for_each_stage(settings))
        heading("3  Ask: one household in each journey stage, on the app's home page")
        for stage, customer in customers.items():
            show_decision(stage, decide(base, customer, dry_run=True))
        heading("4  Learn: the household answers, the next decision knows")
        show_change(base, next(customers[s] for s in ("loyal", "active", *STAGES) if s in customers))
        console.print(f"\nDone in {time.monotonic() - started:.0f} s. Try it yourself:\n")
        example = customers.get("loyal", next(iter(customers.values())))
        console.print(
            f"  curl -s {base}/v1/decisions -H 'Content-Type: application/json' \\\n"
            f'    -d \'{{"customer_id": "{example}", "channel": "app", "explain": "full"}}\'\n',
            highlight=False, markup=False, soft_wrap=True,
        )  # fmt: skip
        if once:
            return
        console.print(f"Serving on {base} (documentation: {base}/docs; models: make ui). Ctrl-C stops.")
        signal.sigwait({signal.SIGINT, signal.SIGTERM})


def heading(text: str) -> None:
    """Print the title of a part."""
    console.print()
    console.rule(f"[bold]{text}", align="left")


def command(*arguments: str) -> None:
    """Run another command of ours and stop with it if it fails."""
    done = subprocess.run([sys.executable, "-m", "service.cli", *arguments], check=False)
    if done.returncode:
        sys.exit(done.returncode)


def follow_the_data(settings: Settings) -> None:
    """Fix the clock's offset, once: the demo's now is the moment after the last transaction of the data."""
    path = settings.var / "clock.json"
    if path.exists():
        return
    last = pc.max(pq.read_table(settings.var / "history" / "lines.parquet", columns=["occurred_at"])["occurred_at"])
    offset = last.as_py().timestamp() + 60 - time.time()
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps({"mode": "offset", "offset_seconds": offset}))
    partial.replace(path)


@contextmanager
def running(name: str, settings: Settings) -> Iterator[None]:
    """Run a command of ours beside the show and end it, by its id, with the show."""
    logs = settings.var / "log"
    logs.mkdir(parents=True, exist_ok=True)
    with (logs / f"{name}.log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "service.cli", name], stdout=log, stderr=log, start_new_session=True
        )
        try:
            time.sleep(0.3)
            if process.poll() is not None:
                console.print((logs / f"{name}.log").read_text().splitlines()[-1], style="bold red")
                sys.exit(1)
            yield
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()


def call(method: str, url: str, body: object = None) -> Any:
    """Call the service as any channel would; a problem ends the show with its text."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"}, method=method)
    try:
        with urllib.request.urlopen(request, timeout=30) as response:
            return json.loads(response.read())
    except urllib.error.HTTPError as error:
        console.print(f"{method} {url}: {error.code} {error.read().decode()}", style="bold red", markup=False)
        sys.exit(1)


def wait_until_ready(base: str) -> None:
    """Wait for the first /readyz."""
    for _ in range(300):
        try:
            with urllib.request.urlopen(f"{base}/readyz", timeout=2):
                return
        except (OSError, urllib.error.URLError):
            time.sleep(0.1)
    console.print("the service did not become ready in 30 s; see var/log/serve.log", style="bold red")
    sys.exit(1)


def grant_consents(base: str, settings: Settings) -> None:
    """Post the example's made-up consents as events, once."""
    done = settings.var / "stamps" / "consents"
    if done.exists():
        return
    households = sorted(
        set(
            pq.read_table(settings.var / "history" / "lines.parquet", columns=["customer_id"])["customer_id"]
            .unique()
            .to_pylist()
        )
    )
    events = [
        {
            "event_id": f"example-consent-{channel}-{household}",
            "customer_id": household,
            "type": "consent_changed",
            "occurred_at": "2017-01-01T05:00:00Z",
            "properties": {
                "channel": channel,
                "purpose": "marketing",
                "granted": (int(household) + 1) % nth != 0,
                "source": "fiction of the example",
            },
        }
        for household in households
        for channel, nth in REFUSED.items()
    ]  # fmt: skip
    with Progress(console=console, transient=True) as progress:
        for start in progress.track(range(0, len(events), 1000), description="consents (fiction of the example)"):
            call("POST", f"{base}/v1/events", events[start : start + 1000])
    done.parent.mkdir(parents=True, exist_ok=True)
    done.write_text("")
    console.print(f"posted {len(events)} consents (fiction of the example) as events")


async def one_for_each_stage(settings: Settings) -> dict[str, str]:
    """Return for each journey stage a household that may be contacted on the app and was not contacted yet."""
    async with open_runtime(settings, follow=False) as runtime:
        ids = all_customers(settings.lake)
        found: dict[str, str] = {}
        counts = dict.fromkeys(STAGES, 0)
        for start in range(0, len(ids), CHUNK):
            await _stages_of(runtime, ids[start : start + CHUNK], found, counts)
    console.print("households by journey stage now: " + ", ".join(f"{n} {stage}" for stage, n in counts.items()))
    return {stage: found[stage] for stage in STAGES if stage in found}


async def _stages_of(runtime: Runtime, ids: list[str], found: dict[str, str], counts: dict[str, int]) -> None:
    serving = runtime.reloader.serving
    if serving is None:
        return
    now = runtime.clock.now()
    batch = (await runtime.state.gather(serving.bundle.plan, ids, "app", now, 10.0)).batch
    codes = serving.catalogue.columns.as_of(batch.facts, now)[serving.catalogue.columns.index["stage"]]
    contacted = set(batch.contacts.customers.tolist())
    for i in np.flatnonzero(~np.isnan(codes)):
        stage = STAGES[int(codes[i])]
        counts[stage] += 1
        if batch.consents[i].get("marketing") == 1 and i not in contacted:
            found.setdefault(stage, ids[i])


def decide(base: str, customer: str, *, dry_run: bool = False, explain: str = "full") -> dict[str, Any]:
    """Ask for the three best actions on the app's home page."""
    placements = [{"name": "app_home", "count": 3}]
    body = {"customer_id": customer, "channel": "app", "placements": placements, "dry_run": dry_run, "explain": explain}
    answer: dict[str, Any] = call("POST", f"{base}/v1/decisions", body)
    return answer


def show_decision(moment: str, answer: dict[str, Any]) -> None:
    """Print a decision as a table."""
    trace = answer["trace"]
    excluded = sum(1 for row in trace if row["stage"] not in ("ranked", "not_selected", "held_out"))
    heading = f"{moment}: household {answer['customer_id']}, arm {answer['arm']}"
    title = f"{heading}; {len(trace)} candidates, {excluded} excluded by policy"
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD)
    for name in COLUMNS[: None if console.width >= WIDE else -1]:
        is_text = name in ("action", "source", "why")
        table.add_column(name, justify="left" if is_text else "right", no_wrap=name != "why")
    for action in answer["actions"]:
        cells = (
            str(action["rank"]),
            action["action_id"],
            f"{action['propensity']:.4f}",
            f"{action['propensity_source']} ({action['evidence']:.0f})",
            f"{action['value']:.2f}",
            f"{action['priority']:.4f}",
            f"{action['selection_probability']:.3f}",
            action["reasons"][0],
        )
        table.add_row(*cells[: len(table.columns)])
    console.print(table)


def show_change(base: str, customer: str) -> None:
    """Show a decision, let the household answer it and shop, and show what the next decision makes of it."""
    before, known_before = decide(base, customer), call("GET", f"{base}/v1/customers/{customer}")
    show_decision("before", before)
    if not before["actions"]:
        return
    top = before["actions"][0]
    for kind in ("impression", "reject"):
        outcome = {
            "outcome_id": f"{before['decision_id']}-{kind}",
            "decision_id": before["decision_id"],
            "action_id": top["action_id"],
            "type": kind,
        }
        receipt = call("POST", f"{base}/v1/outcomes", outcome)
        console.print(f"outcome: {kind} of {top['action_id']} -> {receipt['status']}")
    aisle = next((a["action_id"].split("_", 1)[1] for a in before["actions"] if a["issue"] == "upsell"), "cheese")
    line: dict[str, Any] = dict.fromkeys(("retail_disc", "coupon_disc", "coupon_match_disc"), 0.0)
    line |= {"aisle": aisle, "quantity": 2.0, "sales_value": 9.5, "is_private": False, "is_promoted": False}
    event_id = f"{before['decision_id']}-basket"
    event = {"event_id": event_id, "customer_id": customer, "type": "purchase", "properties": {"lines": [line]}}
    console.print(f"event: a purchase of 9.50 in {aisle} -> {call('POST', f'{base}/v1/events', event)['status']}")
    known_after = wait_for_facts(base, customer, aisle)
    after = decide(base, customer)
    show_decision("after", after)
    table = Table(title="what changed", title_justify="left", box=SIMPLE_HEAD)
    for name in ("what", "before", "after"):
        table.add_column(name, no_wrap=name == "what")
    columns_before, columns_after = flat(known_before), flat(known_after)
    of_aisle = (f"days_since_aisle_purchase__{aisle}", f"aisle_baskets_count__{aisle}")
    watched = ("days_since_last_basket", "baskets_count", "spend_h7", *of_aisle, "shopping_days_28")
    for name in watched:
        table.add_row(name, number(columns_before.get(name)), number(columns_after.get(name)))
    stages_before, stages_after = ends(before), ends(after)
    for name in stages_after:
        if stages_before.get(name) != stages_after[name]:
            table.add_row(name, stages_before.get(name, ""), stages_after[name])
    console.print(table)


def wait_for_facts(base: str, customer: str, aisle: str) -> dict[str, Any]:
    """Wait until the worker has applied the purchase; views are written one after another."""
    for _ in range(200):
        known: dict[str, Any] = call("GET", f"{base}/v1/customers/{customer}")
        days = [flat(known).get(name, 1.0) for name in ("silence_days", f"days_since_aisle_purchase__{aisle}")]
        if max(days) < 0.01:
            return known
        time.sleep(0.05)
    console.print("the worker did not apply the purchase within 10 s; see var/log/worker.log", style="bold red")
    sys.exit(1)


def flat(known: dict[str, Any]) -> dict[str, Any]:
    """Return all columns of a customer's view in one mapping."""
    columns = {name: value for view in known["views"].values() for name, value in view["columns"].items()}
    return {**columns, **known["journey"]}


def ends(answer: dict[str, Any]) -> dict[str, str]:
    """Return where each candidate ended, in words."""
    return {
        row["treatment_id"]: " ".join(filter(None, (row["stage"], row.get("reason") or ""))) for row in answer["trace"]
    }


def number(value: Any) -> str:
    """Write a number as a person reads it."""
    return "-" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)
