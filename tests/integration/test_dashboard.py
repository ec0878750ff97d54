"""The dashboard and the alerts, asked of a real Prometheus that has scraped a real server."""

import contextlib
import http.client
import json
import re
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from tests.integration.running import (
    CHEAP,
    RunningServer,
    cheap_hash,
    copy_without_users,
    free_port,
    import_lines,
    running_server,
    wait_for,
)

pytestmark = pytest.mark.integration

DEPLOY = Path(__file__).parents[2] / "deploy"
DASHBOARD = json.loads((DEPLOY / "grafana" / "fastauth.json").read_text())
QUERIES = [(panel["title"], target["expr"]) for panel in DASHBOARD["panels"] for target in panel["targets"]]
VARIABLES = {"$__rate_interval": "5s", "$instance": ".*"}


class Prometheus:
    """One that scrapes a server twice a second, with the alerts of ``deploy/``."""

    def __init__(self, folder: Path, target: int) -> None:
        if shutil.which("prometheus") is None:
            pytest.fail("prometheus is not installed; run: apt-get install -y prometheus")
        config = (DEPLOY / "prometheus" / "prometheus.yml").read_text()
        assert "127.0.0.1:8000" in config
        config = config.replace("127.0.0.1:8000", f"127.0.0.1:{target}").replace("10s", "500ms")
        (folder / "prometheus.yml").write_text(config)
        shutil.copy(DEPLOY / "prometheus" / "alerts.yml", folder)
        self.port = free_port()
        self._log = (folder / "prometheus.log").open("w")
        self._process = subprocess.Popen(
            [
                "prometheus",
                f"--config.file={folder / 'prometheus.yml'}",
                f"--storage.tsdb.path={folder / 'data'}",
                f"--web.listen-address=127.0.0.1:{self.port}",
            ],
            stdout=self._log,
            stderr=self._log,
        )

    def get(self, path: str) -> Any:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.request("GET", path)
            return json.loads(connection.getresponse().read())
        finally:
            connection.close()

    def ask(self, query: str) -> list[dict[str, Any]]:
        """The result of an instant query; raises AssertionError with what Prometheus says when it cannot be read."""
        answer = self.get(f"/api/v1/query?query={quote(query)}")
        assert answer["status"] == "success", answer
        result: list[dict[str, Any]] = answer["data"]["result"]
        return result

    def has_scraped(self) -> bool:
        try:
            return bool(self.ask("rate(fastauth_requests_total[5s])"))
        except (OSError, ValueError, http.client.HTTPException, AssertionError):
            return False

    def close(self) -> None:
        self._process.terminate()
        self._process.wait(20)
        self._log.close()


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    folder = tmp_path_factory.mktemp("dashboard")
    data_dir = copy_without_users(folder / "data")
    import_lines(data_dir, [{"username": "alice", "password_hash": cheap_hash("pw")}])
    # A source that is not there, so that there is a circuit to see.
    env = {
        **CHEAP,
        "FASTAUTH_IDENTITY__CHAIN": "local,http",
        "FASTAUTH_IDENTITY__HTTP_URL": f"http://127.0.0.1:{free_port()}/",
    }
    with running_server(data_dir, env=env) as server, contextlib.closing(Prometheus(folder, server.port)) as prometheus:
        done = threading.Event()
        thread = threading.Thread(target=_traffic, args=(server, done))
        thread.start()
        try:
            wait_for(prometheus.has_scraped, timeout_s=30)
            time.sleep(2)
            yield prometheus
        finally:
            done.set()
            thread.join()


def _traffic(server: RunningServer, done: threading.Event) -> None:
    while not done.is_set():
        token = server.login("alice", "pw").json["token"]
        for _ in range(5):
            server.verify(token)
        server.login("nobody", "pw")


@pytest.mark.parametrize(("title", "query"), QUERIES)
def test_every_panel_of_the_dashboard_shows_something(prometheus: Prometheus, title: str, query: str) -> None:
    for variable, value in VARIABLES.items():
        query = query.replace(variable, value)
    assert "$" not in query
    result = prometheus.ask(query)
    assert result, title
    assert all(sample["value"][1] != "NaN" for sample in result if "p99" not in title)


def test_every_alert_is_read_and_none_is_wrong_about_a_server_that_is_well(prometheus: Prometheus) -> None:
    wait_for(lambda: all(rule["health"] == "ok" for rule in _rules(prometheus)), timeout_s=10)
    rules = _rules(prometheus)
    assert len(rules) == (DEPLOY / "prometheus" / "alerts.yml").read_text().count("alert:")
    firing = {rule["name"] for rule in rules if rule["state"] == "firing"}
    assert firing <= {"FastauthCircuitOpen"}  # the source is not there


def _rules(prometheus: Prometheus) -> list[dict[str, Any]]:
    groups: list[dict[str, Any]] = prometheus.get("/api/v1/rules")["data"]["groups"]
    return [rule for group in groups for rule in group["rules"]]


def test_every_metric_that_is_named_exists_and_every_one_that_exists_is_shown(prometheus: Prometheus) -> None:
    text = "".join(query for _, query in QUERIES) + (DEPLOY / "prometheus" / "alerts.yml").read_text()
    named = {re.sub(r"_(bucket|sum|count|total)$", "", name) for name in re.findall(r"fastauth_\w+", text)}
    found = prometheus.get("/api/v1/label/__name__/values")["data"]
    known = {re.sub(r"_(bucket|sum|count|total)$", "", name) for name in found if name.startswith("fastauth_")}
    assert named <= known
    assert known - named <= {"fastauth_core"}
