"""Traces of OpenTelemetry: spans of a request and of its steps. Where they are off no SDK is imported.

Decides where spans go: to the console, or by OTLP over HTTP to where OpenTelemetry's own variables say. A span
carries what the log may say and nothing more: names of steps, reasons, versions; never a customer.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal

ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
CLOSE_SECONDS = 2.0
Wanted = Literal["auto", "console", "off"]


class Tracing:
    """Makes spans.

    Args:
        exporter: Where finished spans go. at_once: Send each span as it ends instead of many together.
    """

    def __init__(self, exporter: Any, *, at_once: bool = False) -> None:
        from opentelemetry import trace
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        # Of OTEL_RESOURCE_ATTRIBUTES and OTEL_SERVICE_NAME the environment has the last word.
        self._provider = TracerProvider(resource=Resource.create({"service.name": "nba"}), shutdown_on_exit=False)
        self._provider.add_span_processor(SimpleSpanProcessor(exporter) if at_once else BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("nba")
        self._propagator = TraceContextTextMapPropagator()
        self._server, self._error = trace.SpanKind.SERVER, trace.StatusCode.ERROR

    @contextmanager
    def request(self, method: str, headers: Mapping[str, str]) -> Iterator[Any]:
        """Open the span of a request, below the caller's where `traceparent` names one."""
        above = self._propagator.extract(headers)
        with self._tracer.start_as_current_span(
            method, above, self._server, record_exception=False, set_status_on_exception=False
        ) as span:
            yield span

    @contextmanager
    def step(self, name: str) -> Iterator[Any]:
        """Open the span of a step; an exception marks it by its kind, since its text may repeat what was sent."""
        with self._tracer.start_as_current_span(name, record_exception=False, set_status_on_exception=False) as span:
            try:
                yield span
            except Exception as error:
                span.set_status(self._error)
                span.set_attribute("error.type", type(error).__name__)
                raise

    def finish_request(self, span: Any, method: str, route: str, status: int, noted: Mapping[str, Any]) -> None:
        """Name the span by its route and say how the request ended."""
        span.update_name(f"{method} {route}")
        attributes = {"http.request.method": method, "http.route": route, "http.response.status_code": status}
        if "decision_id" in noted:
            attributes["nba.decision_id"] = noted["decision_id"]
        span.set_attributes({**attributes, **reasons_attribute(noted.get("degraded", ()))})
        for name, version in noted.get("versions", {}).items():
            span.set_attribute(f"nba.version.{name}", version)
        if status >= 500:
            span.set_status(self._error)

    def close(self) -> None:
        """Send what waits, for a while: a collector that is away must not hold up the end of the process."""
        closing = threading.Thread(target=self._provider.shutdown, daemon=True)
        closing.start()
        closing.join(CLOSE_SECONDS)


def reasons_attribute(reasons: Sequence[str]) -> dict[str, Sequence[str]]:
    """Return the attribute that holds degraded reasons; none where there is none."""
    return {"nba.degraded_reasons": list(reasons)} if reasons else {}


def open_tracing(wanted: Wanted, environment: Mapping[str, str]) -> Tracing | None:
    """Return what makes spans, or None where nobody asks for them.

    Args:
        wanted: console: print spans to stdout; auto: send them where the standard variables name an endpoint.
        environment: Of the process.
    """
    if wanted == "console":
        from opentelemetry.sdk.trace.export import ConsoleSpanExporter

        return Tracing(ConsoleSpanExporter(formatter=lambda span: span.to_json(indent=None) + "\n"), at_once=True)
    disabled = environment.get("OTEL_SDK_DISABLED", "").lower() == "true"
    if wanted == "off" or disabled or not any(environment.get(name) for name in ENDPOINTS):
        return None
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

    return Tracing(OTLPSpanExporter())
