"""A named limit: its keys, what is counted, what a refusal says; on a real table of buckets."""

import asyncio
from collections import Counter
from collections.abc import Awaitable

import pytest

from fastauth.domain.limits import Limit, RateLimited
from fastauth.endpoints.client_address import ClientAddresses
from fastauth.endpoints.problems import problem_response
from fastauth.endpoints.rate_limit import AddressLimit, RateLimit, decided
from fastauth.limits import Decision, LocalBuckets
from tests.cases import each
from tests.endpoints.asking import ReadyRequest, header_of


class Limited:
    """A limit of two, which comes back slowly."""

    def __init__(self, text: str = "1/m burst 2") -> None:
        self.counted: Counter[str] = Counter()
        self.limit = RateLimit("login_per_ip", Limit.parse(text), self.count, LocalBuckets(16).take)

    def count(self, outcome: str) -> None:
        self.counted[outcome] += 1

    def admit(self, whose: str) -> None:
        asyncio.run(self.limit.admit(whose))


def test_what_is_left_is_admitted_and_beyond_it_is_refused_with_a_true_time_to_come_back() -> None:
    limited = Limited()
    limited.admit("a")
    limited.admit("a")
    with pytest.raises(RateLimited) as refusal:
        limited.admit("a")
    assert refusal.value.retry_after_s == 60
    response = problem_response(refusal.value)
    assert (response.status, header_of(response, "retry-after")) == (429, "60")
    assert b"login_per_ip" not in response.body
    limited.admit("b")
    assert limited.counted == {"admitted": 3, "refused": 1}


def test_a_shadow_counts_and_never_refuses() -> None:
    limited = Limited("1/m burst 2 shadow")
    for _ in range(5):
        limited.admit("a")
    assert limited.counted == {"admitted": 2, "would_refuse": 3}


@each(
    ("one", "other"),
    [
        (("a:b", "c"), ("a", "b:c")),
        (("a", "1:b"), ("a:1", "b")),
        (("a\n", "b"), ("a", "\nb")),
        (("{a}", "b"), ("a", "{}b")),
    ],
)
def test_no_two_names_and_owners_make_one_key(one: tuple[str, str], other: tuple[str, str]) -> None:
    keys = [
        RateLimit(name, Limit.parse("1/s"), print, LocalBuckets(16).take).key(whose) for name, whose in (one, other)
    ]
    assert keys[0] != keys[1]


def addressed(limited: Limited, *, shows_fields: bool = False) -> AddressLimit:
    return AddressLimit(
        limited.limit, ClientAddresses([], b"x-forwarded-for", lambda _: None), shows_fields=shows_fields
    )


def ask(limit: AddressLimit, peer: str | None) -> ReadyRequest:
    request = ReadyRequest(peer=peer)
    try:
        limit.judge(request, asyncio.run(decided(limit.take(request))))
    except RateLimited as refusal:
        request.answer_fields += problem_response(refusal).headers
    return request


def test_each_address_has_a_bucket_and_a_request_without_one_is_not_limited() -> None:
    limited = Limited()
    limit = addressed(limited)
    for peer in ("192.0.2.1", "192.0.2.1", "192.0.2.1", "192.0.2.2", None, None, None, None):
        assert (b"retry-after", b"60") not in ask(limit, peer).answer_fields or limited.counted["refused"] == 1
    assert limited.counted == {"admitted": 3, "refused": 1}


def test_a_thousand_addresses_of_one_site_share_a_bucket() -> None:
    limited = Limited()
    limit = addressed(limited)
    for number in range(1_000):
        ask(limit, f"2001:db8:0:7::{number:x}")
    assert limited.counted == {"admitted": 2, "refused": 998}


def test_the_fields_say_what_is_left_whatever_the_answer_is() -> None:
    limit = addressed(Limited(), shows_fields=True)
    told = [dict(ask(limit, "192.0.2.1").answer_fields)[b"ratelimit"] for _ in range(3)]
    assert told == [b'"login_per_ip";r=1;t=60', b'"login_per_ip";r=0;t=120', b'"login_per_ip";r=0;t=120']
    assert dict(ask(limit, "192.0.2.1").answer_fields)[b"ratelimit-policy"] == b'"login_per_ip";q=2;w=120'


def test_without_the_setting_no_answer_says_what_is_left() -> None:
    assert ask(addressed(Limited()), "192.0.2.1").answer_fields == ()


def test_a_decision_that_takes_time_is_waited_for() -> None:
    async def later() -> Decision:
        await asyncio.sleep(0)
        return Decision(False, 0, 1)

    def decide(_key: str, _limit: Limit) -> Awaitable[Decision]:
        return later()

    with pytest.raises(RateLimited):
        asyncio.run(RateLimit("x", Limit.parse("1/s"), lambda _: None, decide).admit("a"))
