"""Traces reach a collector: over HTTP, as OpenTelemetry's own protocol, from a real service."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

from tests.served import Served, free_port, process, wait_until
from tests.small_world import SmallWorld
from tests.test_degraded import answers, copy_of_models

CANARY = "canary-customer-7431"


class Collector:
    """A small collector: takes OTLP over HTTP and keeps what it got."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if self.path == "/v1/traces" and self.headers["Content-Type"] == "application/x-protobuf":
                    collector.bodies.append(body)
                answer = ExportTraceServiceResponse().SerializeToString()
                self.send_response(200)
                self.send_header("Content-Type", "application/x-protobuf")
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)

    def spans(self) -> list[tuple[str, Any]]:
        """Return (service name, span) of all that came."""
        found = []
        for body in self.bodies:
            for of_resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                names = {a.key: a.value.string_value for a in of_resource.resource.attributes}
                found += [(names["service.name"], s) for scope in of_resource.scope_spans for s in scope.spans]
        return found


@pytest.fixture
def collector() -> Iterator[Collector]:
    found = Collector()
    found.thread.start()
    yield found
    found.server.shutdown()
    found.server.server_close()


def environment(var: Path, port: int, endpoint: str) -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("NBA_", "OTEL_"))}
    own = {"NBA_VAR": str(var), "NBA_PORT": str(port), "NBA_MLFLOW_URI": "http://127.0.0.1:1"}
    return {**kept, **own, "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint, "OTEL_BSP_SCHEDULE_DELAY": "200"}


def decide(port: int, above: str) -> int:
    """Ask for a decision below a span of the caller's; return the status."""
    served = Served(f"http://127.0.0.1:{port}", Path(), {})
    return served.call("POST", "/v1/decisions", {"customer_id": CANARY, "channel": "app"}, traceparent=above)[0]


def test_a_decision_s_spans_reach_the_collector(small_world: SmallWorld, tmp_path: Path, collector: Collector) -> None:
    """Where the standard variable names a collector it gets the request below the caller's span and its steps."""
    var, port = copy_of_models(small_world, tmp_path / "var"), free_port()
    endpoint = f"http://127.0.0.1:{collector.server.server_address[1]}"
    trace_id = "0af7651916cd43dd8448eb211c80319c"
    with process(environment(var, port, endpoint), var / "serve.log", "serve"):
        wait_until(lambda: answers(port, "/readyz"), 30, var / "serve.log")
        decide(port, f"00-{trace_id}-b7ad6b7169203331-01")
        of_ours: dict[str, Any] = {}
        end = time.monotonic() + 10
        while len(of_ours) < 4 and time.monotonic() < end:
            time.sleep(0.1)
            of_ours = {
                s.name: s for service, s in collector.spans() if s.trace_id.hex() == trace_id and service == "nba"
            }
    assert set(of_ours) == {"POST /v1/decisions", "gather", "decide", "record"}
    root = of_ours.pop("POST /v1/decisions")
    assert root.parent_span_id.hex() == "b7ad6b7169203331"
    assert {span.parent_span_id for span in of_ours.values()} == {root.span_id}
    attributes = {a.key for a in root.attributes}
    assert {"nba.decision_id", "nba.version.model", "http.response.status_code"} <= attributes
    assert CANARY.encode() not in b"".join(collector.bodies)


def test_a_collector_that_is_away_disturbs_nobody(small_world: SmallWorld, tmp_path: Path) -> None:
    """Without its collector the service answers as ever, says so in its log, and ends in time."""
    var, port = copy_of_models(small_world, tmp_path / "var"), free_port()
    log = var / "serve.log"
    with process(environment(var, port, "http://127.0.0.1:1"), log, "serve") as started:
        wait_until(lambda: answers(port, "/readyz"), 30, log)
        assert decide(port, "none") == 200
        time.sleep(0.5)
        asked = time.monotonic()
        started.terminate()
        assert started.wait(9) in (0, -15, 143)
        assert time.monotonic() - asked < 9
