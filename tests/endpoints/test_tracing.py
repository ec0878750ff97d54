"""OpenTelemetry: spans at a real OTLP/HTTP receiver; nothing while it is off; a dead collector holds up nothing."""

import gzip
import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import msgspec
import pytest

from fastauth.server.otel_settings import OtelSettings
from fastauth.server.settings import SettingsRefused, load_settings
from fastauth.server.tracing import MOST_WAITING, Tracing, TracingRefused, open_tracing
from tests.endpoints.application import PASSWORD, Application, bearer
from tests.integration.running import free_port
from tests.server.asking import HOST, ask

trace_service = pytest.importorskip("opentelemetry.proto.collector.trace.v1.trace_service_pb2")
pytest.importorskip("opentelemetry.exporter.otlp.proto.http.trace_exporter")

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


def traceparent(flags: str) -> tuple[bytes, bytes]:
    return (b"traceparent", f"00-{TRACE}-{PARENT}-{flags}".encode())


class Collector:
    """Takes spans as OpenTelemetry's collector does, and keeps them."""

    def __init__(self, status: int = 200) -> None:
        self.spans: list[Any] = []
        self.resources: list[dict[str, str]] = []
        self.requests = 0
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                if self.headers.get("content-encoding") == "gzip":
                    body = gzip.decompress(body)
                assert self.path == "/v1/traces"
                collector.take(body)
                self.send_response(status)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_args: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.endpoint = f"http://127.0.0.1:{self.server.server_port}"
        self._thread = threading.Thread(target=self.server.serve_forever, daemon=True)
        self._thread.start()

    def take(self, body: bytes) -> None:
        self.requests += 1
        for resource in trace_service.ExportTraceServiceRequest.FromString(body).resource_spans:
            self.resources.append({item.key: item.value.string_value for item in resource.resource.attributes})
            for scope in resource.scope_spans:
                self.spans.extend(scope.spans)

    def named(self, name: str) -> Any:
        (span,) = [span for span in self.spans if span.name == name]
        return span

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self._thread.join()


@pytest.fixture
def collector() -> Iterator[Collector]:
    made = Collector()
    yield made
    made.close()


def attributes_of(span: Any) -> dict[str, Any]:
    return {item.key: getattr(item.value, item.value.WhichOneof("value")) for item in span.attributes}


def traced(application: Application, endpoint: str, ratio: float = 1.0) -> Application:
    otel = OtelSettings(endpoint=endpoint, sample_ratio=ratio)
    application.settings = msgspec.structs.replace(application.settings, otel=otel)
    return application


def finish(application: Application) -> None:
    """Ends the service, which sends what is waiting."""
    assert application.service is not None
    application.run(application.service.close())
    application.service = None


def test_a_login_is_a_span_with_its_hash_and_its_write_below_it(application: Application, collector: Collector) -> None:
    traced(application, collector.endpoint)
    login = application.post_json("/auth", {"username": "alice", "password": PASSWORD}, traceparent("01"))
    assert login.status == 200
    finish(application)
    span = collector.named("login")
    assert (span.trace_id.hex(), span.parent_span_id.hex()) == (TRACE, PARENT)
    attributes = attributes_of(span)
    assert (attributes["http.request.method"], attributes["http.route"]) == ("POST", "/auth")
    assert attributes["http.response.status_code"] == 200
    for name in ("hash", "session_write"):
        child = collector.named(name)
        assert (child.trace_id, child.parent_span_id) == (span.trace_id, span.span_id)
        assert span.start_time_unix_nano <= child.start_time_unix_nano <= child.end_time_unix_nano
        assert child.end_time_unix_nano <= span.end_time_unix_nano
    assert attributes_of(collector.named("hash"))["fastauth.wait_ms"] >= 0
    assert collector.resources[0]["service.name"] == "fastauth"
    everything = str(collector.spans)
    assert "alice" not in everything
    assert PASSWORD not in everything


def test_tokens_and_verifications_are_spans_and_a_refusal_has_its_code(
    application: Application, collector: Collector
) -> None:
    token = traced(application, collector.endpoint).login()["token"]
    assert application.verify(token) == 200
    assert application.run(ask(application.app, "/verify/s3cr3t", headers=(HOST, bearer(token)))).status == 200
    assert application.refresh("fa_rt_nonsense").status == 400
    assert application.run(ask(application.app, "/verify")).status == 401
    finish(application)
    verified = [attributes_of(span) for span in collector.spans if span.name == "verify"]
    assert [attributes["http.route"] for attributes in verified] == ["/verify"] * 3
    assert sorted(attributes.get("error.type", "") for attributes in verified) == ["", "", "token_missing"]
    assert attributes_of(collector.named("token"))["error.type"] == "invalid_grant"
    assert "s3cr3t" not in str(collector.spans)
    assert "nonsense" not in str(collector.spans)


def test_a_trace_that_begins_here_has_the_id_of_the_request(
    application: Application, collector: Collector, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    traced(application, collector.endpoint).login()
    finish(application)
    lines = [json.loads(line) for line in capsysbinary.readouterr().err.splitlines()]
    (told,) = [line for line in lines if line["event"] == "login_succeeded"]
    span = collector.named("login")
    assert (span.trace_id.hex(), span.parent_span_id) == (told["request_id"], b"")


@pytest.mark.parametrize(
    ("flags", "ratio", "is_recorded"),
    [("01", 0.0, True), ("00", 1.0, False), (None, 1.0, True), (None, 0.0, False)],
    ids=["its sender records it", "its sender does not", "all that begin here", "none that begin here"],
)
def test_who_began_a_trace_decides_whether_it_is_recorded(
    application: Application, collector: Collector, flags: str | None, ratio: float, is_recorded: bool
) -> None:
    traced(application, collector.endpoint, ratio)
    application.post_json(
        "/auth", {"username": "alice", "password": PASSWORD}, *([] if flags is None else [traceparent(flags)])
    )
    finish(application)
    assert len(collector.spans) == (3 if is_recorded else 0)


def test_a_ratio_records_about_so_many(collector: Collector) -> None:
    from fastauth.endpoints.http import new_trace

    tracing = Tracing(OtelSettings(endpoint=collector.endpoint, sample_ratio=0.25))
    recorded = sum(tracing._is_recorded(new_trace(None)) for _ in range(10_000))
    tracing.close()
    assert 2_200 < recorded < 2_800


@pytest.mark.parametrize("kind", ["nobody listens", "it never answers", "it refuses"])
def test_a_collector_that_is_away_holds_up_no_request_and_no_stop_and_is_told_of_once(
    application: Application, kind: str, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    with socket.socket() as mute:
        mute.bind(("127.0.0.1", 0))
        mute.listen()
        refusing = Collector(400)
        endpoint = {
            "nobody listens": f"http://127.0.0.1:{free_port()}",
            "it never answers": f"http://127.0.0.1:{mute.getsockname()[1]}",
            "it refuses": refusing.endpoint,
        }[kind]
        token = traced(application, endpoint).login()["token"]
        began_s = time.monotonic()
        for _ in range(50):
            assert application.verify(token) == 200
        assert time.monotonic() - began_s < 1
        began_s = time.monotonic()
        finish(application)
        assert time.monotonic() - began_s < 4
        refusing.close()
    lines = [json.loads(line) for line in capsysbinary.readouterr().err.splitlines()]  # JSON, the SDK's words too
    if kind != "it never answers":  # that takes longer than the stop waits
        (told,) = [line for line in lines if line["event"] == "spans_not_exported"]
        assert told["endpoint"] == f"{endpoint}/v1/traces"


def test_what_waits_for_a_collector_is_bounded(collector: Collector) -> None:
    tracing = Tracing(OtelSettings(endpoint=f"http://127.0.0.1:{free_port()}"))
    for _ in range(2 * MOST_WAITING):
        tracing._tracer.start_span("x").end()
    processors: Any = tracing._provider._active_span_processor._span_processors
    (processor,) = processors
    assert len(processor._batch_processor._queue) <= MOST_WAITING
    tracing.close()


def test_off_is_the_default_and_imports_nothing() -> None:
    assert open_tracing(OtelSettings()) is None
    code = "import sys, fastauth.server.app; print([name for name in sys.modules if 'opentelemetry' in name])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_without_the_extra_the_start_is_refused_and_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace.export", None)
    with pytest.raises(TracingRefused, match=r"pip install 'fastauth\[otel\]'"):
        Tracing(OtelSettings(endpoint="http://127.0.0.1:4318"))


@pytest.mark.parametrize(
    ("endpoint", "url"),
    [
        ("http://127.0.0.1:4318", "http://127.0.0.1:4318/v1/traces"),
        ("http://127.0.0.1:4318/", "http://127.0.0.1:4318/v1/traces"),
        ("https://otel.example/in/v1/traces", "https://otel.example/in/v1/traces"),
    ],
)
def test_spans_go_below_the_endpoint_unless_it_has_a_path(endpoint: str, url: str) -> None:
    assert OtelSettings(endpoint=endpoint).url == url


@pytest.mark.parametrize("endpoint", ["localhost:4318", "ftp://a", "http://", "http://u:s3cr3t@a", "http://a:x", "ö"])
def test_an_endpoint_that_is_none_is_a_problem_of_the_configuration(endpoint: str) -> None:
    with pytest.raises(SettingsRefused, match=r"otel\.endpoint") as refused:
        load_settings(None, {"FASTAUTH_OTEL__ENDPOINT": endpoint}, {})
    assert "s3cr3t" not in str(refused.value)
