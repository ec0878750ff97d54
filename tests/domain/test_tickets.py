"""Places in line: for one name from one network, until a minute after their time; nothing else is one."""

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastauth.domain.devices import PURPOSE as OF_DEVICES
from fastauth.domain.devices import DeviceTokens
from fastauth.domain.tickets import PURPOSE, Ticket, Tickets
from fastauth.domain.users import User
from fastauth.domain.waiting_line import RETURN_WINDOW_S
from fastauth.jose.wrapping import MasterKey
from tests.cases import each

NOW_S = 1_800_000_000
TICKET = Ticket(since_us=NOW_S * 1_000_000 - 123_456, due_s=NOW_S + 20)
NAME, NETWORK = "alice", "192.0.2.0/24"
ALICE = User(sub="sub-1", name=NAME, password_hash="", created_at_s=0, updated_at_s=0)
MASTER = MasterKey(bytes(range(32)))


def issued(ticket: Ticket = TICKET, name: str = NAME, network: str = NETWORK, key: bytes = bytes(32)) -> bytes:
    return Tickets(key).issue(ticket, name, network).encode()


def check(
    text: bytes, name: str = NAME, network: str = NETWORK, now_s: int = NOW_S, key: bytes = bytes(32)
) -> Ticket | None:
    return Tickets(key).check(text, name, network, now_s)


def test_a_ticket_says_since_when_its_holder_has_waited_and_when_to_come_back() -> None:
    assert check(issued()) == TICKET


@each("now_s", [0, NOW_S - 400, TICKET.due_s, TICKET.due_s + RETURN_WINDOW_S])
def test_a_ticket_is_good_until_a_minute_after_its_time(now_s: int) -> None:
    assert check(issued(), now_s=now_s) == TICKET


@each("late_s", [1, 3_600, 10**9])
def test_a_ticket_that_is_late_is_none(late_s: int) -> None:
    assert check(issued(), now_s=TICKET.due_s + RETURN_WINDOW_S + late_s) is None


@each("name", ["", "alicf", "Alice", "alice ", "alic", "alicea", "alice192", "bob", "\ud800", "a" * 10_000])
def test_a_ticket_is_one_names(name: str) -> None:
    assert check(issued(), name=name) is None
    assert check(issued(name=name), name=name) == TICKET


@each("network", ["", "192.0.2.0/23", "192.0.3.0/24", "2001:db8::/48", "92.0.2.0/24"])
def test_a_ticket_is_good_from_one_network(network: str) -> None:
    assert check(issued(), network=network) is None
    assert check(issued(network=network), network=network) == TICKET


@each(("name", "network"), [("alice1", "92.0.2.0/24"), ("alic", "e192.0.2.0/24"), ("alice192.0.2.0/24", ""), ("", "x")])
def test_no_two_names_and_networks_are_one(name: str, network: str) -> None:
    assert check(issued(), name, network) is None


def test_a_ticket_of_another_installation_is_none() -> None:
    assert check(issued(), key=bytes(31) + b"\1") is None


@each(
    "ticket",
    [
        Ticket(TICKET.since_us - 1, TICKET.due_s),
        Ticket(0, TICKET.due_s),
        Ticket(TICKET.since_us, TICKET.due_s + 1),
        Ticket(TICKET.due_s, TICKET.since_us),
    ],
)
def test_a_better_place_or_a_later_time_cannot_be_written_over_it(ticket: Ticket) -> None:
    body = base64.urlsafe_b64decode(issued()[2:] + b"==")
    better = base64.urlsafe_b64decode(issued(ticket, key=b"\xff" * 32)[2:] + b"==")
    for forged in (better[:16] + body[16:], better, better[:8] + body[8:], body[:8] + better[8:16] + body[16:]):
        assert check(b"1." + base64.urlsafe_b64encode(forged).rstrip(b"=")) is None or forged == body


def test_every_flipped_bit_and_every_part_of_a_ticket_is_refused() -> None:
    text = issued()
    for place in range(len(text)):
        assert check(text[:place]) is None
        for bit in range(8):
            flipped = bytearray(text)
            flipped[place] ^= 1 << bit
            assert check(bytes(flipped)) is None


@each("spelling", ["standard", "padded", "upper", "spaces", "quoted"])
def test_there_is_one_way_to_write_a_ticket(spelling: str) -> None:
    texts = [issued(Ticket(TICKET.since_us + number, TICKET.due_s)) for number in range(50)]
    ways = {
        "standard": lambda text: text.replace(b"-", b"+").replace(b"_", b"/"),
        "padded": lambda text: text + b"=",
        "upper": lambda text: text.upper(),
        "spaces": lambda text: text + b" ",
        "quoted": lambda text: b'"' + text + b'"',
    }
    others = [(text, ways[spelling](text)) for text in texts]
    assert any(text != other for text, other in others)
    assert all((check(other) is None) == (text != other) for text, other in others)


@given(st.binary(max_size=120), st.text(max_size=10), st.text(max_size=10))
def test_no_bytes_are_a_ticket_and_none_make_it_raise(text: bytes, name: str, network: str) -> None:
    assert check(text, name, network) is None


@given(st.integers(0, (1 << 63) - 1), st.integers(0, (1 << 63) - 1), st.text(max_size=30), st.text(max_size=30))
def test_any_ticket_comes_back_as_it_was(since_us: int, due_s: int, name: str, network: str) -> None:
    ticket = Ticket(since_us, due_s)
    assert check(issued(ticket, name, network), name, network, due_s) == ticket


# ------------------------------------------------------------------ before its holder has said who it is


def due_s(text: bytes, network: str = NETWORK, now_s: int = NOW_S, key: bytes = bytes(32)) -> int | None:
    return Tickets(key).due_s(text, network, now_s)


@each("name", [NAME, "bob", ""])
def test_whose_ticket_it_is_need_not_be_known_to_see_that_it_may_be_one(name: str) -> None:
    assert due_s(issued(name=name)) == TICKET.due_s
    assert due_s(issued(name=name), now_s=TICKET.due_s + RETURN_WINDOW_S) == TICKET.due_s


@each(
    ("network", "now_s", "key"),
    [
        ("192.0.3.0/24", NOW_S, bytes(32)),
        ("", NOW_S, bytes(32)),
        (NETWORK, TICKET.due_s + RETURN_WINDOW_S + 1, bytes(32)),
        (NETWORK, NOW_S, bytes(31) + b"\1"),
    ],
)
def test_one_from_elsewhere_or_too_late_or_of_another_installation_may_not_be_one(
    network: str, now_s: int, key: bytes
) -> None:
    assert due_s(issued(), network, now_s, key) is None


def test_what_may_be_a_ticket_is_one_only_if_all_of_it_is_genuine() -> None:
    body = base64.urlsafe_b64decode(issued()[2:] + b"==")
    passed = 0
    for place in range(len(body)):
        forged = bytearray(body)
        forged[place] ^= 1
        text = b"1." + base64.urlsafe_b64encode(forged).rstrip(b"=")
        passed += due_s(text) is not None
        assert (due_s(text) is not None) == (
            place >= len(body) - 32
        )  # the fields and the pass tell, the rest does not yet
        assert check(text) is None
    assert passed == 32


@given(st.binary(max_size=120))
def test_no_bytes_may_be_a_ticket(text: bytes) -> None:
    assert due_s(text) is None


# ------------------------------------------------------------------ tickets and known devices


def test_tickets_and_proofs_of_devices_have_different_keys() -> None:
    assert MASTER.derive(PURPOSE) != MASTER.derive(OF_DEVICES)
    key = MASTER.derive(PURPOSE)
    assert check(issued(key=key), key=key) == TICKET
    assert check(issued(key=MASTER.derive(OF_DEVICES)), key=key) is None


def test_a_proof_of_a_device_is_no_ticket_and_a_ticket_none_of_a_device() -> None:
    devices, tickets = DeviceTokens(MASTER.derive(OF_DEVICES), 3_600), Tickets(MASTER.derive(PURPOSE))
    proof = devices.issue(ALICE, NOW_S).encode()
    ticket = tickets.issue(TICKET, NAME, NETWORK).encode()
    assert devices.check(proof, ALICE, NOW_S) is not None
    assert tickets.check(ticket, NAME, NETWORK, NOW_S) is not None
    assert tickets.check(proof, NAME, NETWORK, NOW_S) is None
    assert devices.check(ticket, ALICE, NOW_S) is None


def test_under_one_key_they_would_not_be_each_other_either() -> None:
    assert check(DeviceTokens(bytes(32), 3_600).issue(ALICE, NOW_S).encode()) is None
    assert DeviceTokens(bytes(32), 3_600).check(issued(), ALICE, NOW_S) is None


def test_a_ticket_says_nothing_of_whose_it_is() -> None:
    for text in (issued(name="alexandria"), base64.urlsafe_b64decode(issued(name="alexandria")[2:] + b"==")):
        assert b"alexandria" not in text
        assert b"192.0" not in text


def test_a_key_of_another_length_is_refused() -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        Tickets(b"short")
