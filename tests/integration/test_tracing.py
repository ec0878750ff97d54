"""Spans of a real server with two workers: granian runs many requests in one context, and none may meet another's."""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.endpoints.test_tracing import Collector
from tests.integration.running import CHEAP, RunningServer, copy_without_users, fastauth, running_server


def _login(server: RunningServer, trace: str) -> int:
    body = '{"username": "ann", "password": "p4ss"}'
    headers = {"Content-Type": "application/json", "traceparent": f"00-{trace}-b7ad6b7169203331-01"}
    return server.request("POST", "/auth", body, headers).status


def test_each_of_many_logins_at_once_has_its_own_spans(tmp_path: Path) -> None:
    data_dir = copy_without_users(tmp_path / "data")
    added = fastauth("user", "add", "ann", "--password-stdin", data_dir=data_dir, stdin="p4ss", env=CHEAP)
    assert added.returncode == 0, added.stderr
    collector = Collector()
    traces = [f"{number:032x}" for number in range(1, 41)]
    with running_server(
        data_dir, "--workers", "2", env={**CHEAP, "FASTAUTH_OTEL__ENDPOINT": collector.endpoint}
    ) as server:
        with ThreadPoolExecutor(8) as threads:
            assert list(threads.map(lambda trace: _login(server, trace), traces)) == [200] * len(traces)
        lines = server.log
    collector.close()
    for trace in traces:
        spans = [span for span in collector.spans if span.trace_id.hex() == trace]
        assert sorted(span.name for span in spans) == ["hash", "login", "session_write"]
        (login,) = [span for span in spans if span.name == "login"]
        assert {span.parent_span_id for span in spans if span is not login} == {login.span_id}
        assert trace in lines  # the audit stream knows the login by the same number


def test_a_server_whose_extra_is_missing_says_so_in_one_line(tmp_path: Path) -> None:
    blocker = tmp_path / "modules" / "opentelemetry"
    blocker.mkdir(parents=True)
    (blocker / "__init__.py").touch()  # stands in front of the real one, and is empty
    data_dir = copy_without_users(tmp_path / "data")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join([str(blocker.parent), os.environ.get("PYTHONPATH", "")]))
        refused = fastauth("serve", data_dir=data_dir, env={"FASTAUTH_OTEL__ENDPOINT": "http://127.0.0.1:4318"})
    assert refused.returncode == 1
    assert refused.stderr.count("\n") == 1
    assert "pip install 'fastauth[otel]'" in refused.stderr
