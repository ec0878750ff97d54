"""OpenTelemetry spans of the three journeys, made by hand; while they are off nothing of this is in the way.

The parts of a journey are wrapped where the application is composed. A span is tied to its request and never to the
running task: granian runs many requests in one context.
"""

import logging
import threading
import time
from collections.abc import Awaitable, Callable
from importlib.metadata import version
from typing import Any, Final, TypeVar

from fastauth.domain.errors import FastauthError
from fastauth.domain.sessions import Session
from fastauth.domain.traces import Trace
from fastauth.domain.users import User
from fastauth.endpoints.http import Request, Response
from fastauth.endpoints.login_queue import LoginQueue, Turn
from fastauth.endpoints.session_starter import SessionStarter
from fastauth.server.asgi import Route
from fastauth.server.otel_settings import OtelSettings
from fastauth.server.telemetry import get_log

T = TypeVar("T")

# Each worker holds so many spans while the collector is slow or away; then the oldest are dropped.
MOST_WAITING: Final = 2_048
_BATCH: Final = 512
_EVERY_MS: Final = 1_000
_TIMEOUT_S: Final = 2.0
_CLOSE_S: Final = 2.0
_SAME_FAILURE_LOG_S: Final = 60.0
_JOURNEYS: Final = {"/auth": "login", "/token": "token", "/verify": "verify"}
_LOW_BITS: Final = (1 << 64) - 1


class TracingRefused(FastauthError):
    """Tracing is on, and cannot be."""

    code = "tracing_refused"


def check_extra() -> None:
    """Raises TracingRefused where it is not installed."""
    try:
        import opentelemetry.exporter.otlp.proto.http.trace_exporter
        import opentelemetry.sdk.trace.export  # noqa: F401
    except ImportError as error:
        raise TracingRefused(
            f"otel.endpoint needs {error.name}, which is not installed; pip install 'fastauth[otel]'"
        ) from None


class Tracing:
    """The spans of one process, and their way to the collector."""

    def __init__(self, settings: OtelSettings, monotonic: Callable[[], float] = time.monotonic) -> None:
        """Raises TracingRefused where the extra is not installed."""
        check_extra()
        from opentelemetry import trace as api
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        quiet = logging.getLogger("opentelemetry")  # it says in plain text what ``_Exporter`` says as an event
        quiet.addHandler(logging.NullHandler())
        quiet.propagate = False
        exporter: Any = _Exporter(OTLPSpanExporter(endpoint=settings.url, timeout=_TIMEOUT_S), settings.url, monotonic)
        self._api: Any = api
        self._ids = _Ids()
        ids: Any = self._ids
        resource = Resource.create({"service.name": "fastauth", "service.version": version("fastauth")})
        self._provider = TracerProvider(resource=resource, id_generator=ids)
        self._provider.add_span_processor(
            BatchSpanProcessor(
                exporter, max_queue_size=MOST_WAITING, schedule_delay_millis=_EVERY_MS, max_export_batch_size=_BATCH
            )
        )
        self._tracer: Any = self._provider.get_tracer("fastauth")
        self._bound = round(settings.sample_ratio * (_LOW_BITS + 1))

    def watch(self, route: Route) -> None:
        """Record what is asked of this route, if it is one of the journeys."""
        if (name := _JOURNEYS.get(route.path)) is not None:
            route.handle = self._around(name, route.handle)

    def child(self, request: Request, name: str) -> Any:
        """A part of the request's journey, to be ended; None for a request that is not recorded."""
        span = getattr(request, "span", None)
        if span is None:
            return None
        return self._tracer.start_span(name, context=self._api.set_span_in_context(span))

    def close(self) -> None:
        """Send what is waiting, for a moment: a collector that is away holds up no stop."""
        ending = threading.Thread(target=self._provider.shutdown, daemon=True)
        ending.start()
        ending.join(_CLOSE_S)

    def _around(self, name: str, handle: Callable[[Request], Any]) -> Callable[[Request], Any]:
        def traced(request: Request) -> Any:
            trace = request.trace
            if not self._is_recorded(trace):
                return handle(request)
            span = request.span = self._begin(name, request, trace)
            try:
                answer = handle(request)
            except BaseException as error:
                _fail(span, error)
                raise
            if not isinstance(answer, Response):
                return _until(span, answer)
            _end(span, answer)
            return answer

        return traced

    def _is_recorded(self, trace: Trace) -> bool:
        """What its sender says, else so many of all: by the number, so that every node says the same."""
        if trace.parent_id is not None:
            return trace.is_sampled
        return int(trace.trace_id[16:], 16) < self._bound

    def _begin(self, name: str, request: Request, trace: Trace) -> Any:
        api, context = self._api, None
        if trace.parent_id is not None:
            parent = api.SpanContext(int(trace.trace_id, 16), int(trace.parent_id, 16), True, api.TraceFlags(1))
            context = api.set_span_in_context(api.NonRecordingSpan(parent))
        self._ids.next_trace_id = int(trace.trace_id, 16)  # of a trace that begins here: the request's id
        attributes = {"http.request.method": request.method, "http.route": request.path}
        if name == "verify":  # what stands behind it is somebody else's path
            attributes["http.route"] = "/verify"
        return self._tracer.start_span(name, context=context, kind=api.SpanKind.SERVER, attributes=attributes)


class TracedQueue:
    """The login queue, with a span for the wait and the hash."""

    def __init__(self, queue: LoginQueue, tracing: Tracing) -> None:
        self._queue = queue
        self._child = tracing.child
        self.refuse_unread = queue.refuse_unread
        self.enter = queue.enter
        self.leave = queue.leave

    async def run(self, request: Request, turn: Turn, memory_kib: int, job: Callable[[], T]) -> T:
        """As the queue does it. The wait for a thread is an attribute of the span."""
        span = self._child(request, "hash")
        if span is None:
            return await self._queue.run(request, turn, memory_kib, job)
        began_ns = time.monotonic_ns()

        def timed() -> T:
            span.set_attribute("fastauth.wait_ms", (time.monotonic_ns() - began_ns) / 1_000_000)
            return job()

        try:
            return await self._queue.run(request, turn, memory_kib, timed)
        finally:
            span.end()


class TracedStarter:
    """Session starts, with a span for the write."""

    def __init__(self, starter: SessionStarter, tracing: Tracing) -> None:
        self._save = starter.save
        self._child = tracing.child
        self.begin = starter.begin

    async def save(self, session: Session, user: User, request: Request) -> bool:
        """As without the span."""
        span = self._child(request, "session_write")
        try:
            return await self._save(session, user, request)
        finally:
            if span is not None:
                span.end()


def open_tracing(settings: OtelSettings) -> Tracing | None:
    """None while it is off: then nothing of OpenTelemetry is imported. Raises TracingRefused."""
    return Tracing(settings) if settings.is_on else None


class _Ids:
    """Numbers for the SDK: the trace's is that of the request, so that its log lines are found by it."""

    def __init__(self) -> None:
        from opentelemetry.sdk.trace.id_generator import RandomIdGenerator

        self.next_trace_id = 1
        self.generate_span_id = RandomIdGenerator().generate_span_id

    def generate_trace_id(self) -> int:
        """Asked for on the event loop, right after ``next_trace_id`` was set."""
        return self.next_trace_id

    def is_trace_id_random(self) -> bool:
        """Ours are."""
        return True


class _Exporter:
    """The exporter, with a line in the log when the collector does not take what it is sent; one a minute."""

    def __init__(self, exporter: Any, url: str, monotonic: Callable[[], float]) -> None:
        self._exporter = exporter
        self._url = url
        self._monotonic = monotonic
        self._told_s = float("-inf")
        self._lost = 0
        self.shutdown = exporter.shutdown
        self.force_flush = exporter.force_flush

    def export(self, spans: Any) -> Any:
        """In a thread of its own."""
        result = self._exporter.export(spans)
        if result.name == "SUCCESS":
            return result
        self._lost += len(spans)
        if self._monotonic() - self._told_s >= _SAME_FAILURE_LOG_S:
            self._told_s = self._monotonic()
            get_log().warning("spans_not_exported", endpoint=self._url, spans=self._lost)
        return result


async def _until(span: Any, answer: Awaitable[Response]) -> Response:
    try:
        response = await answer
    except BaseException as error:
        _fail(span, error)
        raise
    _end(span, response)
    return response


def _end(span: Any, response: Response) -> None:
    span.set_attribute("http.response.status_code", response.status)
    span.end()


def _fail(span: Any, error: BaseException) -> None:
    """The error's code or type: its text may quote what it choked on."""
    span.set_attribute("error.type", error.code if isinstance(error, FastauthError) else type(error).__name__)
    span.end()
