"""The public keys, cacheable; and whether this process is alive and wants work."""

import json

import pytest

from fastauth.endpoints.client_address import parse_networks
from fastauth.endpoints.health import ReadyEndpoint, livez
from fastauth.endpoints.http import Response
from fastauth.endpoints.jwks import JwksEndpoint
from fastauth.endpoints.operators import Operators
from fastauth.jose.keyring import KeyRing
from fastauth.jose.keys import SigningKey
from tests.cases import each
from tests.endpoints.asking import ReadyRequest, header_of


def ask(endpoint: JwksEndpoint, if_none_match: str | None = None) -> Response:
    return endpoint(ReadyRequest(headers={} if if_none_match is None else {b"if-none-match": if_none_match.encode()}))


@pytest.fixture
def endpoint(signing_key: SigningKey, other_key: SigningKey) -> JwksEndpoint:
    return JwksEndpoint(KeyRing([signing_key, other_key], signing_key.kid), 300)


def test_the_key_set_is_public_cacheable_and_holds_nothing_private(
    endpoint: JwksEndpoint, signing_key: SigningKey, other_key: SigningKey
) -> None:
    response = ask(endpoint)
    assert response.status == 200
    assert header_of(response, "content-type") == "application/jwk-set+json"
    assert header_of(response, "cache-control") == "public, max-age=300"
    keys = json.loads(response.body)["keys"]
    assert [key["kid"] for key in keys] == [signing_key.kid, other_key.kid]
    assert all(key.keys() == {"kid", "kty", "use", "alg", "n", "e"} for key in keys)


@each("spelling", ["{}", "W/{}", '"x", {}', '"x",W/{}', "*", "{}, W/{}", " {} "])
def test_who_has_the_document_gets_a_304_without_it(endpoint: JwksEndpoint, spelling: str) -> None:
    etag = header_of(ask(endpoint), "etag")
    response = ask(endpoint, spelling.replace("{}", str(etag)))
    assert (response.status, response.body) == (304, b"")
    assert header_of(response, "etag") == etag
    assert header_of(response, "cache-control") == "public, max-age=300"


@each("tag", ["", '"x"', "x", 'W/"x"', '""'])
def test_who_has_another_document_gets_this_one(endpoint: JwksEndpoint, tag: str) -> None:
    assert ask(endpoint, tag).status == 200


def test_another_ring_has_another_tag(endpoint: JwksEndpoint, signing_key: SigningKey) -> None:
    other = JwksEndpoint(KeyRing([signing_key], signing_key.kid), 300)
    assert ask(other, header_of(ask(endpoint), "etag")).status == 200


def test_a_process_that_answers_is_alive() -> None:
    response = livez(ReadyRequest())
    assert (response.status, json.loads(response.body)) == (200, {"status": "alive"})
    assert header_of(response, "cache-control") == "no-store"


def test_a_process_is_ready_until_it_is_told_to_stop() -> None:
    draining: list[bool] = []
    endpoint = ReadyEndpoint(lambda: bool(draining), lambda: False, lambda: ["redis"], Operators([]))
    assert endpoint(ReadyRequest()).status == 200
    draining.append(True)
    response = endpoint(ReadyRequest())
    assert (response.status, json.loads(response.body)) == (503, {"status": "draining"})
    assert header_of(response, "retry-after") == "1"
    assert header_of(response, "cache-control") == "no-store"


@each(
    ("peer", "headers", "body"),
    [
        ("127.0.0.1", {}, {"status": "ready", "degraded": ["redis"]}),
        ("192.0.2.1", {}, {"status": "ready"}),
        ("127.0.0.1", {b"x-forwarded-for": b"127.0.0.1"}, {"status": "ready"}),
        (None, {}, {"status": "ready"}),
    ],
)
def test_what_a_process_has_to_do_without_leaves_it_ready_and_is_for_operators_to_know(
    peer: str | None, headers: dict[bytes, bytes], body: dict[str, object]
) -> None:
    endpoint = ReadyEndpoint(lambda: False, lambda: False, lambda: ["redis"], Operators(parse_networks("loopback")))
    response = endpoint(ReadyRequest(headers=headers, peer=peer))
    assert (response.status, json.loads(response.body)) == (200, body)
