"""A person in front of a browser while the server is overloaded: the page, the countdown, the next try."""

import asyncio
import contextlib
import http.client
import http.server
import json
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs

import pytest

from tests.chromium import a_page
from tests.integration.running import (
    CHEAP,
    RunningServer,
    cheap_hash,
    copy_without_users,
    import_lines,
    running_server,
    wait_for,
)

pytestmark = pytest.mark.integration

FORM = b"""<!doctype html><title>Shop</title><form method=post action=/login>
<input name=username value=alice><input name=password type=password value=pw><button>Sign in</button></form>"""


class Shop(http.server.BaseHTTPRequestHandler):
    """A web application that asks fastauth on behalf of the browser, and hands on what it says when that is a page."""

    protocol_version = "HTTP/1.1"
    auth_port = 0

    def do_GET(self) -> None:
        self._answer(200, FORM)

    def do_POST(self) -> None:
        fields = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
        credentials = {name: values[0] for name, values in fields.items()}
        headers = {"Content-Type": "application/json", "Accept": self.headers["Accept"]}
        if cookies := self.headers.get("Cookie"):
            headers["Cookie"] = cookies
        connection = http.client.HTTPConnection("127.0.0.1", self.auth_port, timeout=30)
        connection.request("POST", "/auth", json.dumps(credentials), headers)
        answer = connection.getresponse()
        body = answer.read()
        connection.close()
        if answer.status == 503:
            kept = ("content-type", "retry-after", "set-cookie", "content-security-policy")
            self._answer(503, body, [(name, value) for name, value in answer.getheaders() if name.lower() in kept])
        else:
            self._answer(200, f"<title>{answer.status}</title><h1>Welcome</h1>".encode())

    def _answer(self, status: int, body: bytes, headers: list[tuple[str, str]] | None = None) -> None:
        self.send_response(status)
        for name, value in headers or [("Content-Type", "text/html")]:
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name there
        pass


@contextlib.contextmanager
def a_shop(server: RunningServer) -> Iterator[str]:
    handler = type("AShop", (Shop,), {"auth_port": server.port})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as shop:
        thread = threading.Thread(target=shop.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield f"http://localhost:{shop.server_port}/"
        finally:
            shop.shutdown()
            thread.join()


@contextlib.contextmanager
def a_crowd(server: RunningServer) -> Iterator[None]:
    """So many logins that nobody else gets in, until the end of the block; not so many that there is no time to read
    them, because then nobody would get a ticket either.
    """
    is_over = threading.Event()

    def come() -> None:
        while not is_over.is_set():
            if server.login("slow", "wrong").status == 503:
                is_over.wait(0.2)

    crowd = [threading.Thread(target=come) for _ in range(40)]
    for one in crowd:
        one.start()
    try:
        wait_for(lambda: server.login("alice", "pw").status == 503)
        yield
    finally:
        is_over.set()
        for one in crowd:
            one.join()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A hash takes a thread about a tenth of a second."""
    import bcrypt

    data_dir = copy_without_users(tmp_path_factory.mktemp("waiting"))
    slow = bcrypt.hashpw(b"pw", bcrypt.gensalt(10, b"2b")).decode()
    import_lines(
        data_dir,
        [{"username": "slow", "password_hash": slow}, {"username": "alice", "password_hash": cheap_hash("pw")}],
    )
    with running_server(data_dir, env={**CHEAP, "FASTAUTH_LANES__LOGIN_BURST_S": "0.5"}) as server:
        yield server


async def _sign_in(shop: str, crowd: contextlib.AbstractContextManager[None]) -> bytes:
    """A picture of the page that was seen on the way."""
    async with a_page() as page:
        await page.open(shop)
        await page.until("document.title == 'Shop'")
        with crowd:
            await page.evaluate("document.querySelector('button').click()")
            await page.until("document.title == 'You are in line'")
            shown = await page.evaluate("document.querySelector('output').textContent")
            assert shown.endswith(" s")
            assert await page.evaluate("document.querySelector('progress').max") >= 1
            assert await page.evaluate("document.cookie") == ""  # the ticket is not for scripts
            picture = await page.screenshot()
        await page.until("document.title == '200'", timeout_s=60)  # by itself
    return picture


def test_a_browser_sees_a_page_that_counts_down_and_gets_in_by_itself(server: RunningServer) -> None:
    with a_shop(server) as shop:
        picture = asyncio.run(_sign_in(shop, a_crowd(server)))
    if keep := os.environ.get("FASTAUTH_SCREENSHOT"):
        Path(keep).write_bytes(picture)
    assert picture.startswith(b"\x89PNG")
    metrics = server.request("GET", "/metrics").body.decode()
    assert 'fastauth_lane_decisions_total{decision="admitted_with_ticket",lane="login"} 1.0' in metrics
