"""Whose request it is: no client chooses its own address, and no header makes the search fail or slow."""

import time
from collections.abc import Mapping
from ipaddress import ip_address, ip_network

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fastauth.endpoints.client_address import ClientAddresses, address_of, in_networks, parse_networks
from tests.cases import each

XFF = b"x-forwarded-for"
FORWARDED = b"forwarded"
PROXY = "10.0.0.1"  # trusted, as all of TRUSTED
TRUSTED = "10.0.0.0/8, 2001:db8:ffff::/48, 192.0.2.7"


class Finder:
    """ClientAddresses and what it warned of."""

    def __init__(self, header: bytes = XFF, trusted: str = TRUSTED) -> None:
        self.header = header
        self.warnings: list[str] = []
        self.addresses = ClientAddresses(parse_networks(trusted), header, self.warnings.append)

    def __call__(self, peer: str | None, value: bytes | None = None) -> str | None:
        return self.addresses.find(peer, {} if value is None else {self.header: value})


_xff = Finder()
_forwarded = Finder(FORWARDED)


# The peer


@each("peer", ["203.0.113.9", "::ffff:203.0.113.9", "::FFFF:CB00:7109", "::ffff:203.0.113.9%eth0"])
def test_an_ipv4_client_has_one_name_mapped_or_not(peer: str) -> None:
    assert Finder(trusted="")(peer) == "203.0.113.9"


@each(
    ("peer", "client"),
    [
        ("2001:db8:0:1::5", "2001:db8:0:1::/64"),
        ("2001:DB8:0:1:ffff:ffff:ffff:ffff", "2001:db8:0:1::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("::1", "::/64"),
    ],
)
def test_an_ipv6_client_counts_as_its_site(peer: str, client: str) -> None:
    assert Finder(trusted="")(peer) == client


def test_a_thousand_addresses_of_one_site_are_one_client() -> None:
    find = Finder(trusted="")
    assert {find(f"2001:db8:0:1:{i:x}::{i:x}") for i in range(1_000)} == {"2001:db8:0:1::/64"}
    assert find("2001:db8:0:2::1") == "2001:db8:0:2::/64"


@each(
    "peer",
    [None, "", "testclient", "/run/fastauth.sock", "unix:", "1.2.3", "%eth0", "01.2.3.4", "1.2.3.4:80", "\ud800"],
)
def test_a_peer_without_address_is_nobody_and_warned_of_once(peer: str | None) -> None:
    find = Finder()
    assert find(peer, b"203.0.113.9") is None
    assert find(peer) is None
    assert find.warnings == ["peer_without_address"]


@each(("trusted", "peer"), [("", PROXY), (TRUSTED, "203.0.113.9"), (TRUSTED, "192.0.2.8"), ("::ffff:10.0.0.2", PROXY)])
def test_what_an_untrusted_peer_forwards_is_ignored_and_warned_of_once(trusted: str, peer: str) -> None:
    find = Finder(trusted=trusted)
    assert find(peer) == peer
    assert find.warnings == []
    assert [find(peer, b"198.51.100.1"), find(peer, b"10.0.0.3"), find(peer, b"")] == [peer] * 3
    assert find.warnings == ["forwarding_header_from_untrusted_peer"]


@each(
    ("trusted", "peer"),
    [
        ("10.0.0.0/8", "::ffff:10.0.0.1"),
        ("::ffff:10.0.0.0/104", "10.0.0.1"),
        ("::ffff:10.0.0.1", "::ffff:10.0.0.1"),
        ("fe80::/10", "fe80::1%eth0"),
        ("loopback", "127.0.0.9"),
        ("loopback", "::1"),
        ("2001:db8::5", "2001:db8::5"),  # the address decides, not its /64
    ],
)
def test_a_trusted_peer_is_known_in_every_form(trusted: str, peer: str) -> None:
    assert Finder(trusted=trusted)(peer, b"203.0.113.9") == "203.0.113.9"


def test_a_neighbour_of_a_trusted_ipv6_address_is_not_trusted() -> None:
    assert Finder(trusted="2001:db8::5")("2001:db8::6", b"203.0.113.9") == "2001:db8::/64"


def test_an_address_has_no_zone() -> None:
    assert address_of("fe80::1%eth0") == address_of("fe80::1") == ip_address("fe80::1")


# The walk, the same for both headers


@each(
    ("hops", "client"),
    [
        (["203.0.113.9"], "203.0.113.9"),
        (["198.51.100.1", "203.0.113.9"], "203.0.113.9"),
        (["198.51.100.1", "203.0.113.9", "10.0.0.2", "192.0.2.7"], "203.0.113.9"),
        (["203.0.113.9", "10.0.0.2", "[2001:db8:ffff::1]"], "203.0.113.9"),
        (["203.0.113.9", "[::ffff:10.0.0.2]"], "203.0.113.9"),
        (["[::ffff:203.0.113.9]:80"], "203.0.113.9"),
        (["[2001:db8:0:1::5]:443"], "2001:db8:0:1::/64"),
        (["10.0.0.3", "10.0.0.2"], "10.0.0.3"),  # all trusted: the leftmost
        (["[2001:db8:ffff::1]", "10.0.0.2"], "2001:db8:ffff::/64"),
        (["198.51.100.1", "unknown"], PROXY),
        (["198.51.100.1", "_hidden", "10.0.0.2"], "10.0.0.2"),  # never skipped over
        (["198.51.100.1", "fe80::1%eth0", "10.0.0.3", "10.0.0.2"], "10.0.0.3"),
        (["203.0.113.9"] * 100, "203.0.113.9"),
        (["203.0.113.9"] + ["10.0.0.2"] * 31, "203.0.113.9"),
        (["203.0.113.9"] + ["10.0.0.3"] + ["10.0.0.2"] * 31, "10.0.0.3"),  # 32 hops are looked at
        (["203.0.113.9"] + ["10.0.0.3"] + ["10.0.0.2"] * 32, "10.0.0.2"),
        (["203.0.113.9"] + ["10.0.0.2"] * 99, "10.0.0.2"),
    ],
)
def test_the_client_is_the_first_untrusted_hop_from_the_right(hops: list[str], client: str) -> None:
    assert _xff(PROXY, ", ".join(hops).encode()) == client
    assert _xff(PROXY, ",".join(hops).encode()) == client
    assert _forwarded(PROXY, ", ".join(f'for="{hop}"' for hop in hops).encode()) == client


@each(
    ("node", "client"),
    [
        ("203.0.113.9", "203.0.113.9"),
        ("203.0.113.9:5678", "203.0.113.9"),
        ("203.0.113.9:_port-1.a", "203.0.113.9"),
        ("[2001:db8:0:1::5]", "2001:db8:0:1::/64"),
        ("[2001:db8:0:1::5]:5678", "2001:db8:0:1::/64"),
        ("2001:db8:0:1::5", "2001:db8:0:1::/64"),
        ("2001:db8:0:1:2:3:4:5", "2001:db8:0:1::/64"),
        ("::ffff:203.0.113.9", "203.0.113.9"),
        ("[ffff:ffff:ffff:ffff:ffff:ffff:255.255.255.255]:65535", "ffff:ffff:ffff:ffff::/64"),
    ],
)
def test_every_form_of_an_address_is_read(node: str, client: str) -> None:
    assert _xff(PROXY, f"198.51.100.1,\t {node} \t".encode()) == client
    assert _forwarded(PROXY, f'for=198.51.100.1, for="{node}"'.encode()) == client
    assert _forwarded(PROXY, f"for=198.51.100.1, for={node}".encode()) == client  # quotes forgotten


_NO_ADDRESSES = [
    b"",
    b"unknown",
    b"Unknown",
    b"_hidden",
    b"_203.0.113.9",
    b"-",
    b"localhost",
    b"unix:",
    b"1.2.3",
    b"1.2.3.256",
    b"01.2.3.4",
    b"1.2.3.4.",
    b"203.0.113.9/32",
    b"203.0.113.9:",
    b"203.0.113.9:123456",
    b"203.0.113.9:80:80",
    b"203.0.113.9 198.51.100.2",
    b"[203.0.113.9]",
    b"[2001:db8::1",
    b"2001:db8::1]:80",
    b"[2001:db8::1]80",
    b"[[2001:db8::1]]",
    b"[]",
    b":",
    b":::",
    b"fe80::1%eth0",
    b"[fe80::1%25eth0]:80",
    b"203.0.113.9%eth0",
    b"\xff\xfe",
    b"203.0.113.9\x00",
    b"203.0.113.9\x0b",
    b"\xd9\xa1.2.3.4",
    "１.2.3.4".encode(),
    b"203.0.113.9:_" + b"a" * 60,  # longer than anything honest
    b"9" * 4_000,
]


@each("node", _NO_ADDRESSES)
def test_the_chain_ends_at_what_is_no_address(node: bytes) -> None:
    assert _xff(PROXY, node) == PROXY
    assert _xff(PROXY, b"198.51.100.1, " + node) == PROXY
    assert _xff(PROXY, b"198.51.100.1, " + node + b", 10.0.0.2") == "10.0.0.2"
    quoted = b'for="' + node + b'"'
    assert _forwarded(PROXY, quoted) == PROXY
    assert _forwarded(PROXY, b"for=198.51.100.1, " + quoted) == PROXY
    assert _forwarded(PROXY, b"for=198.51.100.1, " + quoted + b", for=10.0.0.2") == "10.0.0.2"


@each(
    ("value", "client"),
    [
        (b"", PROXY),
        (b" ", PROXY),
        (b",", PROXY),
        (b"," * 5_000, PROXY),
        (b"198.51.100.1,", PROXY),  # a proxy that was at a loss, perhaps: what it was told is not believed
        (b"198.51.100.1, , 10.0.0.2", "10.0.0.2"),
        (b",,198.51.100.1,,, 203.0.113.9", "203.0.113.9"),  # on a client's side they change nothing
        (b'198.51.100.1, "203.0.113.9"', PROXY),
        (b'"198.51.100.1, 203.0.113.9', "203.0.113.9"),  # quotes mean nothing here
        (b"for=203.0.113.9", PROXY),
    ],
)
def test_commas_and_quotes_in_x_forwarded_for(value: bytes, client: str) -> None:
    assert _xff(PROXY, value) == client


def test_a_missing_header_leaves_the_peer() -> None:
    assert _xff(PROXY) == _forwarded(PROXY) == PROXY
    assert _xff("::ffff:10.0.0.1") == PROXY


@each("header", [XFF, FORWARDED])
def test_only_the_configured_header_is_looked_at(header: bytes) -> None:
    both: Mapping[bytes, bytes] = {XFF: b"203.0.113.1", FORWARDED: b"for=203.0.113.2"}
    other = {name: value for name, value in both.items() if name != header}
    find = Finder(header)
    assert find.addresses.find(PROXY, both) == {XFF: "203.0.113.1", FORWARDED: "203.0.113.2"}[header]
    assert find.addresses.find(PROXY, other) == PROXY
    assert find.addresses.find("203.0.113.9", other) == "203.0.113.9"
    assert find.warnings == []


# Forwarded (RFC 7239)


@each(
    "element",
    [
        b"for=203.0.113.9",
        b"FOR=203.0.113.9",
        b'For="203.0.113.9"',
        b'for="203.0.113.\\9"',  # a quoted-pair, RFC 9110 section 5.6.4
        b'for="203.0.113.9:80"',
        b"for=203.0.113.9;proto=http;by=10.0.0.1",
        b"proto=https;by=_x;for=203.0.113.9",
        b";for=203.0.113.9;;",
        b"host=a ; for=203.0.113.9 ;\tproto=http",
        b"host=;for=203.0.113.9",
        b"host=example.com:8080;for=203.0.113.9",
        b'host="a, for=198.51.100.2";for=203.0.113.9',
        b'for=203.0.113.9;host="a, for=198.51.100.2"',
        b'for=203.0.113.9;host="a;for=198.51.100.2"',
        b'for=203.0.113.9;host="a\\", for=198.51.100.2"',
        b'for=203.0.113.9;host="\\\\\\", for=198.51.100.2\\\\"',
        b'for=203.0.113.9;host="\\"\\"";secret="\\\\"',
        b"for=203.0.113.9;x-for=198.51.100.2;forx=198.51.100.2",
        b"for=203.0.113.9;host=\xff\xfe",
    ],
)
def test_an_element_is_read_as_rfc_7239_says(element: bytes) -> None:
    for left in (b"", b"for=198.51.100.1, ", b'for="198.51.100.1,', b"\\,", b'host="\\,', b'",', b",,;,"):
        assert _forwarded(PROXY, left + element) == "203.0.113.9"
        assert _forwarded(PROXY, left + element + b", for=10.0.0.2;host=a") == "203.0.113.9"


@each(
    "element",
    [
        b"proto=http",
        b"203.0.113.9",
        b"for",
        b"for=",
        b'for=""',
        b"for =203.0.113.9",
        b"for= 203.0.113.9",
        b"for=203.0.113.9;for=203.0.113.9",
        b"for=203.0.113.9;FOR=198.51.100.2",
        b"for=203.0.113.9 proto=http",
        b'for="203.0.113.9"x',
        b'for=x"203.0.113.9"',
        b'for="203.0.113.9',
        b'for=203.0.113.9"',
        b'for="203.0.113.9\\"',
        b"for='203.0.113.9'",
        b"x for=203.0.113.9",
        b"=;for=203.0.113.9",
        b"for=203.0.113.9;x",
        b'for=203.0.113.9;host=\\"a"',
        b"f\xc3\xb6r=203.0.113.9",
    ],
)
def test_the_chain_ends_at_an_element_that_names_nobody(element: bytes) -> None:
    for left in (b"", b"for=198.51.100.1, ", b'for="198.51.100.1", '):
        assert _forwarded(PROXY, left + element) == PROXY
        assert _forwarded(PROXY, left + element + b", for=10.0.0.2") == "10.0.0.2"


# Bounds


@each(("header", "node"), [(XFF, b"%s"), (FORWARDED, b"for=%s"), (FORWARDED, b'host="\\",";for="%s"')])
def test_what_is_cut_through_is_no_other_address(header: bytes, node: bytes) -> None:
    find = Finder(header)
    whole, right = node % b"203.0.113.199", node % b"10.0.0.2"
    for cut in range(len(whole) + 1):
        value = whole + b",".ljust(4_096 + cut - len(whole) - len(right)) + right
        assert find(PROXY, value) == ("10.0.0.2" if cut else "203.0.113.199")


def test_a_long_chain_of_addresses_is_followed_as_far_as_it_is_known() -> None:
    for find, node in ((_xff, b"%s, "), (_forwarded, b"for=%s, ")):
        untrusted, trusted = node % b"198.51.100.1" * 4_000, node % b"10.0.0.2" * 4_000
        right = (node % b"203.0.113.9").rstrip(b", ")
        assert find(PROXY, untrusted + trusted + right) == "203.0.113.9"
        assert find(PROXY, untrusted + trusted.rstrip(b", ")) == "10.0.0.2"
        assert find(PROXY, trusted + untrusted.rstrip(b", ")) == "198.51.100.1"


@each(
    "left",
    [
        b"x" * 65_000,
        b"," * 65_000,
        b" " * 65_000,
        b"\t " * 32_000 + b"x",
        b'"' * 65_000,
        b'"' * 65_001,
        b'"\\' * 32_000,
        b'\\"' * 32_000,
        b"\\" * 65_000 + b'"',
        b'a="' + b"\\a" * 2_000 + b'"x',
        b";" * 65_000,
        b" ; " * 20_000 + b"x",
        b"a=b;" * 16_000,
        b"1" * 65_000 + b":",
    ],
)
def test_a_hostile_header_costs_little(left: bytes) -> None:
    started = time.process_time()
    assert _xff(PROXY, left + b", 10.0.0.3") == "10.0.0.3"
    assert _forwarded(PROXY, left + b", for=10.0.0.3") == "10.0.0.3"
    assert time.process_time() - started < 0.1  # far more than it takes, far less than quadratic time would


# What no client can do

_lefts = st.binary(max_size=60) | st.lists(
    st.sampled_from([b",", b'"', b"\\", b";", b"=", b" ", b"for=", b"for=10.0.0.9", b"10.0.0.9", b"unknown", b"\xff"]),
    max_size=30,
).map(b"".join)
_all_bytes = _lefts | st.builds(lambda piece, n: piece * n, _lefts, st.integers(1, 300))


@given(
    _all_bytes,
    st.sampled_from([b",", b", ", b" ,\t"]),
    st.sampled_from([b"", b", 10.0.0.2", b", 10.0.0.2:80, 10.0.0.3"]),
)
def test_nothing_on_the_left_changes_who_the_client_is(left: bytes, comma: bytes, proxies: bytes) -> None:
    assert _xff(PROXY, left + comma + b"203.0.113.9" + proxies) == "203.0.113.9"


_honest = [
    b"for=203.0.113.9",
    b'proto=http;For="203.0.113.9:80";host="a, \\"for=10.0.0.4\\\\"',
    b'host="\\\\\\"";for=203.0.113.9;by="_a"',
]
_proxies = [b"", b", for=10.0.0.2", b', for="[2001:db8:ffff::1]:80";host="\\",", for=10.0.0.3']


@given(_all_bytes, st.sampled_from([b",", b", ", b" ,\t"]), st.sampled_from(_honest), st.sampled_from(_proxies))
@example(b'for="', b", ", _honest[1], _proxies[2])
@example(b'for="\\', b",", _honest[2], _proxies[1])
def test_nothing_on_the_left_changes_who_the_forwarded_client_is(
    left: bytes, comma: bytes, honest: bytes, proxies: bytes
) -> None:
    assert _forwarded(PROXY, left + comma + honest + proxies) == "203.0.113.9"


@given(st.sampled_from([PROXY, "203.0.113.9", "::1"]) | st.none() | st.text(max_size=20), _all_bytes)
def test_no_peer_and_no_header_make_it_fail(peer: str | None, value: bytes) -> None:
    for find in (_xff, _forwarded):
        client = find(peer, value)
        assert (client is None) == (address_of(peer) is None)
        assert client is None or ip_network(client)


def test_a_warning_tells_nothing_of_the_header() -> None:
    find = Finder()
    for peer in ("203.0.113.9", None) * 3:
        find(peer, b"secret")
    assert find.warnings == ["forwarding_header_from_untrusted_peer", "peer_without_address"]


# Networks


@each(
    ("text", "networks"),
    [
        ("", []),
        (" , ", []),
        ("10.0.0.0/8, 2001:db8::/32", ["10.0.0.0/8", "2001:db8::/32"]),
        (
            "10.0.0.0/8 2001:db8::/32\n192.0.2.1,192.0.2.2",
            ["10.0.0.0/8", "2001:db8::/32", "192.0.2.1/32", "192.0.2.2/32"],
        ),
        ("2001:db8::1", ["2001:db8::1/128"]),
        ("loopback", ["127.0.0.0/8", "::1/128"]),
        ("loopback,10.0.0.1", ["127.0.0.0/8", "::1/128", "10.0.0.1/32"]),
        ("0.0.0.0/0,::/0", ["0.0.0.0/0", "::/0"]),
        ("::ffff:10.0.0.0/104 ::ffff:0:0/96 ::ffff:10.0.0.1", ["10.0.0.0/8", "0.0.0.0/0", "10.0.0.1/32"]),
    ],
)
def test_networks_are_read(text: str, networks: list[str]) -> None:
    assert [str(network) for network in parse_networks(text)] == networks


@each("part", ["10.0.0.0/33", "10.0.0", "/8", "10.0.0.0/", "proxy.example", "Loopback", "fe80::1%eth0", "[::1]", "a/b"])
def test_a_bad_network_is_named(part: str) -> None:
    with pytest.raises(ValueError, match="neither an address, nor a network") as refused:
        parse_networks(f"10.0.0.0/8, {part}, ::1")
    assert repr(part) in str(refused.value)


@each(
    ("part", "meant"),
    [
        ("10.1.2.3/8", "10.0.0.0/8"),
        ("2001:db8::1/32", "2001:db8::/32"),
        ("192.0.2.1/255.255.255.0", "192.0.2.0/24"),
        ("::ffff:10.1.2.3/104", "::ffff:10.0.0.0/104"),
    ],
)
def test_host_bits_are_refused_with_the_network_that_was_meant(part: str, meant: str) -> None:
    with pytest.raises(ValueError, match="bits set behind its prefix") as refused:
        parse_networks(f"loopback {part}")
    assert repr(part) in str(refused.value)
    named = str(refused.value).rpartition("was ")[2].removesuffix(" meant?")
    assert ip_network(named) == ip_network(meant)


def test_in_networks() -> None:
    loopback = parse_networks("loopback")
    assert all(in_networks(address_of(peer), loopback) for peer in ("127.1.2.3", "::1", "::ffff:127.0.0.1"))
    assert not any(in_networks(address_of(peer), loopback) for peer in (None, "testclient", "10.0.0.1", "::2"))
