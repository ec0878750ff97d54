"""The examples run as they stand; only their issuer's keys come from a server of the test."""

import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any, Final

import pytest

from fastauth.jose.keys import SigningKey
from tests.jose.making import claims_with, token_of
from tests.verifier.adapters.asking import Answer
from tests.verifier.adapters.test_asgi import asked as asked_over_asgi
from tests.verifier.adapters.test_flask import asked as asked_over_wsgi

EXAMPLES: Final = Path(__file__).parents[3] / "examples"
AUTH: Final = "http://127.0.0.1:8000"
# A Django project is one process: asks its own example in it, with the token in its argument.
_ASK_DJANGO: Final = """
import sys, json, django
import {name} as example
sys.modules["__main__"] = example
django.setup()
from django.test import Client
ask = lambda **fields: Client(SERVER_NAME="localhost").get("/", **fields)
answers = [ask(), ask(HTTP_AUTHORIZATION="Bearer x"), ask(HTTP_AUTHORIZATION="Bearer " + sys.argv[1])]
print(json.dumps([[answer.status_code, dict(answer.headers), answer.content.decode()] for answer in answers]))
"""


@pytest.fixture(scope="module")
def jwks_url(signing_key: SigningKey) -> Iterator[str]:
    """Where the issuer's keys are served."""
    body = json.dumps({"keys": [signing_key.public_jwk]}).encode()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/.well-known/jwks.json"
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def token(signing_key: SigningKey) -> str:
    """A good token by the real clock, as the examples have none other."""
    now_s = int(time.time())
    return token_of(signing_key, payload=claims_with(iss=AUTH, aud=AUTH, iat=now_s, exp=now_s + 600)).decode()


def source_of(name: str, jwks_url: str) -> str:
    """An example with the keys of the test."""
    source = (EXAMPLES / f"{name}.py").read_text()
    assert source.count('f"{AUTH}/.well-known/jwks.json"') == 1
    return source.replace('f"{AUTH}/.well-known/jwks.json"', repr(jwks_url))


def check(answers: list[Answer]) -> None:
    """Without a token, with a bad one, with a good one."""
    nothing, bad, good = answers
    assert nothing.status == 401
    assert bad.status == 401
    assert 'error="invalid_token"' in str(bad.challenge)
    assert (good.status, good.body.strip('"')) == (200, "hello 5f9c")


@pytest.mark.parametrize("name", ["asgi_app", "starlette_app", "fastapi_app", "flask_app"])
def test_an_example_lets_in_who_has_a_token(name: str, jwks_url: str, token: str) -> None:
    module: dict[str, Any] = {"__name__": name}
    exec(compile(source_of(name, jwks_url), name, "exec"), module)  # noqa: S102
    ask = asked_over_wsgi(module["app"], "/") if name == "flask_app" else asked_over_asgi(module["app"])
    check([ask([]), ask(["Bearer x"]), ask([f"Bearer {token}"])])


@pytest.mark.parametrize("name", ["django_app", "drf_app"])
def test_a_django_example_lets_in_who_has_a_token(name: str, jwks_url: str, token: str, tmp_path: Path) -> None:
    (tmp_path / f"{name}.py").write_text(source_of(name, jwks_url))
    script = _ASK_DJANGO.replace("{name}", name)
    run = subprocess.run(
        [sys.executable, "-c", script, token], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    assert run.returncode == 0, run.stderr
    check(
        [
            Answer(status, {name.lower(): value for name, value in headers.items()}, body)
            for status, headers, body in json.loads(run.stdout)
        ]
    )
