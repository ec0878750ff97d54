"""Who may read the metrics: an address of the operator's, and nobody through a proxy."""

import pytest

from fastauth.endpoints.client_address import parse_networks
from fastauth.endpoints.errors import NotForYou
from fastauth.endpoints.operators import MetricsEndpoint, Operators
from tests.cases import each
from tests.endpoints.asking import ReadyRequest, header_of

OPERATORS = Operators(parse_networks("loopback, 10.1.0.0/16"))


@each("peer", ["127.0.0.1", "::1", "10.1.2.3", "::ffff:10.1.2.3"])
def test_an_operator_reads_the_metrics(peer: str) -> None:
    response = MetricsEndpoint(OPERATORS, lambda: ("text/plain", b"x 1"))(ReadyRequest(peer=peer))
    assert (response.status, response.body) == (200, b"x 1")
    assert header_of(response, "content-type") == "text/plain"
    assert header_of(response, "cache-control") == "no-store"


@each("peer", ["10.2.0.1", "192.0.2.1", "2001:db8::1", "testclient", "", None])
def test_anybody_else_does_not(peer: str | None) -> None:
    with pytest.raises(NotForYou):
        MetricsEndpoint(OPERATORS, lambda: ("text/plain", b""))(ReadyRequest(peer=peer))


@each("header", ["forwarded", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-real-ip", "via"])
def test_behind_a_proxy_on_this_machine_nobody_is_an_operator(header: str) -> None:
    with pytest.raises(NotForYou):
        MetricsEndpoint(OPERATORS, lambda: ("", b""))(ReadyRequest(peer="127.0.0.1", headers={header.encode(): b""}))
