"""The log, the spans and the metrics: what they say, and that none of them says anything of a customer."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import re
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from service.adapters.embedded import EmbeddedServer
from service.adapters.parquet_lake import UnreadableEntry
from service.logs import JsonLines, LineHandler, current_request, write_line
from service.ports import StoreUnavailable
from service.tracing import Tracing, open_tracing
from tests.served import Served
from tests.service.api.serving import Running, running

KEPT = {"time", "level", "event", "logger", "request_id"}
SAID_OF_A_REQUEST = {"method", "route", "status", "milliseconds", "decision_id", "degraded", "versions"}
UUID = "0b54a9d1-8f0c-4e6e-9a37-2f3a1c5b7d11"


@pytest.fixture(scope="module")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real server of our own."""
    with EmbeddedServer(tmp_path_factory.mktemp("redis")) as url:
        yield url


@pytest.fixture(scope="module")
def api(redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """An API without keys."""
    with running(redis_url, tmp_path_factory.mktemp("api")) as up:
        yield up


@contextmanager
def logged(level: int = logging.DEBUG, *, trusts_all: bool = False) -> Iterator[io.StringIO]:
    """Catch what the whole process logs, as the service would write it."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonLines(trusts_all=trusts_all))
    root = logging.getLogger()
    before = root.level
    root.addHandler(handler)
    root.setLevel(level)
    try:
        yield stream
    finally:
        root.removeHandler(handler)
        root.setLevel(before)


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def said(stream: io.StringIO, n: int) -> list[dict[str, Any]]:
    """Return `n` lines: that of a request is written when its answer is on its way."""
    end = time.monotonic() + 5
    while stream.getvalue().count("\n") < n and time.monotonic() < end:
        time.sleep(0.01)
    return lines(stream)


def failing(value: str) -> None:
    raise sqlite3.OperationalError(f"no such customer: {value}")


def test_one_event_is_one_line() -> None:
    """Line feeds, quotes, NUL and half surrogates in a message neither break nor forge a line."""
    with logged() as stream:
        logging.getLogger("nba").warning('a\n{"level": "error"}\r\n\u2028\0\ud800 %s', "b\nc")
    [line] = lines(stream)
    assert line["event"].startswith('a\n{"level"')
    assert line["level"] == "warning"
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line["time"])


def test_exceptions_are_named_and_not_quoted() -> None:
    """Of a foreign exception the log keeps its kind and where it arose; its text may hold what was sent."""
    with logged() as stream:
        try:
            failing("canary")
        except sqlite3.OperationalError as error:
            logging.getLogger("nba").error("it failed: %s", error, exc_info=error)
    [line] = lines(stream)
    assert line["event"] == "it failed: OperationalError"
    assert line["error"] == "OperationalError"
    assert line["where"][-1].endswith("failing")
    assert "canary" not in stream.getvalue()


def test_our_own_exceptions_are_quoted() -> None:
    """Errors of this service are written for people and say nothing of customers, so they stay whole."""
    with logged() as stream:
        logging.getLogger("nba").warning("waiting: %s", StoreUnavailable("log_unavailable", "no answer within 10 ms"))
    assert lines(stream)[0]["event"] == "waiting: StoreUnavailable: log_unavailable: no answer within 10 ms"


def test_what_could_not_be_read_is_not_repeated() -> None:
    """Our exceptions that may hold a row's values are named and not quoted either."""
    with logged() as stream:
        logging.getLogger("nba.worker").error("entry 1-1 set aside: %s", UnreadableEntry("1-1", "events: canary"))
    assert lines(stream)[0]["event"] == "entry 1-1 set aside: UnreadableEntry"


def test_foreign_loggers_say_the_constant_part() -> None:
    """Of another package's message only its template's first line is kept, unless the process sees no customer."""
    for trusts_all, event in ((False, "key %s is bad"), (True, "key canary is bad\nsecond")):
        with logged(trusts_all=trusts_all) as stream:
            logging.getLogger("redis.connection").error("key %s is bad\nsecond", "canary")
        assert [line["event"] for line in lines(stream)] == [event]


def test_lines_name_the_request_they_belong_to() -> None:
    """Whatever is logged while a request is answered carries its id."""
    token = current_request.set(UUID)
    with logged() as stream:
        logging.getLogger("nba").info("inside")
        write_line(logging.getLogger("nba.access"), logging.INFO, "request", {"status": 200})
    current_request.reset(token)
    assert [line["request_id"] for line in lines(stream)] == [UUID, UUID]
    assert lines(stream)[1]["status"] == 200


def test_a_request_is_one_line(api: Running) -> None:
    """A decision's line says route, status, time, decision, reasons and versions; its id is the answer's header."""
    with logged(logging.INFO) as stream:
        answer = api.call("POST", "/v1/decisions", {"customer_id": "c-1", "channel": "app"}, {"X-Request-Id": UUID})
        api.call("GET", "/livez")
        lost = api.call("GET", "/v1/customers/c-1/none")
        decided, missed = said(stream, 2)
    assert answer.headers["x-request-id"] == UUID
    assert set(decided) <= KEPT | SAID_OF_A_REQUEST
    assert decided["request_id"] == UUID
    assert (decided["method"], decided["route"], decided["status"]) == ("POST", "/v1/decisions", 200)
    assert decided["decision_id"] == answer.json["decision_id"]
    assert decided["degraded"] == answer.json["degraded_reasons"] == ["cold_start"]
    assert decided["versions"] == answer.json["versions"]
    assert 0 < decided["milliseconds"] < 20_000
    assert (missed["route"], missed["status"]) == ("none", 404)
    assert missed["request_id"] == lost.headers["x-request-id"]


@pytest.mark.parametrize("sent", ["", "anna", "12345678", UUID + "0", UUID + "\t x", "{}".format("a" * 33), "é" * 36])
def test_only_a_uuid_is_a_request_id(api: Running, sent: str) -> None:
    """Any other X-Request-Id is replaced: it could be a name, and it would stand in the log."""
    answer = api.call("GET", "/livez", headers={"X-Request-Id": sent.encode("latin-1")})
    assert re.fullmatch(r"[0-9a-f]{32}", answer.headers["x-request-id"])


def canaries(n: int) -> list[str]:
    return [f"Zuzana-Canary-{i:04d}" for i in range(n)]


def plant(api: Running, name: str, i: int) -> None:
    """Send a customer's name wherever a caller could."""
    headers = {"X-Request-Id": name, "User-Agent": name, "traceparent": name, "Cookie": name, "Idempotency-Key": name}
    asked = {"customer_id": name, "channel": "app"}
    match i % 10:
        case 0:
            api.call("POST", "/v1/decisions", asked, headers)
        case 1:
            api.call("POST", "/v1/decisions", {**asked, "context": {name: name}}, headers)
        case 2:
            api.call("POST", "/v1/decisions", {**asked, "channel": name, name: 1}, headers)
        case 3:
            event = {"event_id": name, "customer_id": name, "type": "purchase", "properties": {"name": name}}
            api.call("POST", "/v1/events", [event, {**event, "type": name}, {name: name}], headers)
        case 4:
            ids = {"outcome_id": name, "decision_id": name, "action_id": name}
            api.call("POST", "/v1/outcomes", {**ids, "type": "accept"}, headers)
        case 5:
            method = "GET" if i % 20 == 5 else "DELETE"
            api.call(method, f"/v1/customers/{name}?name={name}", headers=headers)
        case 6:
            api.call("GET", f"/{name}/{name}", headers=headers)
        case 7:
            api.call("POST", "/v1/decisions", f'{{"customer_id": "{name}", {name}'.encode(), headers)
        case 8:
            api.call("PUT", f"/v1/switches/action/{name}", {"paused": True, "who": name, "why": name}, headers)
        case 9:
            api.raw(f"{name} /{name} HTTP/1.1\r\nHost: {name}\r\nX-Request-Id: {name}\r\n\r\n".encode(), 2.0)


def test_a_thousand_planted_names_are_nowhere(api: Running) -> None:
    """Names in bodies, headers, paths, ids and bad requests stand in no log line, at any level, and in no metric."""
    names = canaries(1000)
    with logged(logging.DEBUG) as stream:
        for i, name in enumerate(names):
            plant(api, name, i)
        said(stream, 900)
    text = stream.getvalue() + api.call("GET", "/metrics").body.decode()
    assert [line["event"] for line in lines(stream)].count("request") == 900
    assert "canary" not in text.lower()
    assert "Zuzana" not in text


def test_a_defect_repeats_nothing_that_was_sent(api: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    """An unexpected error is a 500 with an id, its line names kind and place, and its text stays unsaid."""

    async def broken(*_: Any, **__: Any) -> None:
        failing("Zuzana-Canary")

    monkeypatch.setattr(api.app.state.runtime.online, "decide", broken)
    with logged() as stream:
        answer = api.call("POST", "/v1/decisions", {"customer_id": "Zuzana-Canary", "channel": "app"})
        found = [line for line in said(stream, 2) if line["level"] == "error"]
    assert answer.status == 500
    assert {line["request_id"] for line in found} == {answer.headers["x-request-id"]}
    assert [line["event"] for line in found] == ["unexpected error on /v1/decisions", "request"]
    assert found[0]["error"] == "OperationalError"
    assert "Canary" not in stream.getvalue()


def metrics_of(api: Running) -> dict[str, float]:
    text = api.call("GET", "/metrics").body.decode()
    return {m[1]: float(m[2]) for m in re.finditer(r"^([a-z_]+(?:\{.*\})?) (\S+)$", text, re.M)}


def test_metrics_say_what_a_business_asks(api: Running) -> None:
    """Decisions by arm and channel, those without action, reasons, times of stores, breakers and versions are there."""
    before = metrics_of(api)
    for i in range(40):
        api.call("POST", "/v1/decisions", {"customer_id": f"m-{i}", "channel": "app"})
    api.call("POST", "/v1/events", {"event_id": "m-e", "customer_id": "m-1", "type": "none-such"})
    after = metrics_of(api)

    def grown(prefix: str) -> float:
        return sum(value - before.get(name, 0.0) for name, value in after.items() if name.startswith(prefix))

    decisions = [name for name in after if name.startswith("nba_decisions_total{")]
    assert all('arm="' in name and 'channel="' in name for name in decisions)
    assert grown("nba_decisions_total{") == 40
    assert grown('nba_degraded_total{reason="cold_start"}') == 40
    shown = [name for name in after if name.startswith("nba_actions_shown_total{")]
    assert all('issue="' in name and 'arm="' in name and 'channel="' in name for name in shown)
    assert grown("nba_actions_shown_total{") > 0 or grown("nba_decisions_without_action_total{") == 40
    assert grown('nba_dependency_seconds_count{dep="state",op="gather"}') == 40
    assert grown('nba_dependency_seconds_count{dep="state",op="record"}') >= 40
    assert grown("nba_decide_seconds_count") >= 40
    assert grown("nba_events_total{") == 1
    # Feast, once imported by another test, makes all applications of this process share their series.
    served = [name for name, count in after.items() if name.startswith("nba_model_info{") and count]
    assert any('model="table"' in name for name in served)
    assert all(f'{label}="' in name for name in served for label in ("model", "catalogue", "features"))


def test_ages_of_facts_and_breakers_are_measured(served: Served) -> None:
    """Of a world with facts the metrics know their age by view, the bundle's age, and that no breaker is open."""
    for i in range(33):
        served.decide(str(1 + i), dry_run=True)
    time.sleep(1.1)
    text = str(served.call("GET", "/metrics")[1])
    counts = re.findall(r'nba_feature_age_seconds_count\{view="(\w+)"\} (\S+)', text)
    assert counts
    assert sum(float(count) for _, count in counts) > 0
    assert re.findall(r'nba_breaker_state\{dep="(\w+)"\} 0\.0', text) == ["features", "state", "journal"]
    assert float(re.findall(r"^nba_bundle_age_seconds (\S+)", text, re.M)[0]) > 0


def test_the_log_of_a_running_service_is_json(served: Served) -> None:
    """Service and worker write nothing but lines of JSON, and none holds the customer who was asked for."""
    served.decide("Zuzana-Canary-Served")
    for name in ("serve.log", "worker.log"):
        text = (served.var.parent / name).read_text()
        parsed = [json.loads(line) for line in text.splitlines()]
        assert parsed, name
        assert all({"time", "level", "event"} <= set(line) for line in parsed)
        assert "Zuzana" not in text


def test_spans_are_the_steps(redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With traces on, a decision is a span below the caller's, with gather, decide and record below it."""
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    exporter = InMemorySpanExporter()
    tracing = Tracing(exporter, at_once=True)
    above = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    monkeypatch.setattr("service.api.app.open_tracing", lambda *_: tracing)
    with running(redis_url, tmp_path) as api:
        body = {"customer_id": "Zuzana-Canary", "channel": "app"}
        answer = api.call("POST", "/v1/decisions", body, {"traceparent": above})
        lost = api.call("GET", "/Zuzana-Canary")
    assert (answer.status, lost.status) == (200, 404)
    spans = {span.name: span for span in exporter.get_finished_spans()}
    assert set(spans) == {"POST /v1/decisions", "gather", "decide", "record", "GET none"}
    root = spans["POST /v1/decisions"]
    assert f"{root.context.trace_id:032x}" == above[3:35]
    assert f"{root.parent.span_id:016x}" == above[36:52]
    assert {spans[name].parent.span_id for name in ("gather", "decide", "record")} == {root.context.span_id}
    assert root.attributes["nba.decision_id"] == answer.json["decision_id"]
    assert root.attributes["nba.degraded_reasons"] == ("cold_start",)
    assert spans["decide"].attributes["nba.degraded_reasons"] == ("cold_start",)
    assert "Canary" not in "".join(span.to_json() for span in spans.values())


def test_traces_are_off_unless_asked_for() -> None:
    """Without the standard variable no SDK is imported; with it, or for the console, spans are made."""
    code = "import sys, service.api.app; print([m for m in sys.modules if m.startswith('opentelemetry.sdk')])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    assert open_tracing("auto", {}) is None
    assert open_tracing("off", {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4318"}) is None
    console = open_tracing("console", {})
    assert console is not None
    console.close()
    found = open_tracing("auto", {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4318"})
    assert found is not None
    found.close()


def test_lines_of_requests_are_written_once_a_turn_and_in_order() -> None:
    """What comes with a request waits for the end of the loop's turn; any other line is written at once, after them."""
    stream = io.StringIO()
    handler = LineHandler(stream)
    handler.setFormatter(JsonLines())
    logger = logging.Logger("nba.turns")
    logger.addHandler(handler)
    written: list[int] = []

    async def say() -> None:
        for i in range(3):
            write_line(logger, logging.INFO, "request", {"i": i})
        written.append(stream.getvalue().count("\n"))
        await asyncio.sleep(0)
        written.append(stream.getvalue().count("\n"))
        write_line(logger, logging.INFO, "request", {"i": 3})
        logger.warning("at once")
        written.append(stream.getvalue().count("\n"))

    asyncio.run(say())
    assert written == [0, 3, 5]
    assert [line.get("i", line["event"]) for line in lines(stream)] == [0, 1, 2, 3, "at once"]
