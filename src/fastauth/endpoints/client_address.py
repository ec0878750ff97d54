"""Whose request it is, as rate limits count: the first untrusted hop from the right, which no client can choose.

Each proxy adds on the right whom it talks to; all that stands left of the first untrusted hop is that hop's own word.
So everything here reads from the right, and nothing on the left changes how what is right of it is read.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from itertools import islice
from typing import Final, NamedTuple

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

_MAX_HOPS: Final = 32
_MAX_HEADER_BYTES: Final = 4 * 1024
_MAX_NODE_BYTES: Final = 64  # the longest address with its brackets and port has 53
_CACHED_ADDRESSES: Final = 4_096

_LOOPBACK: Final = (IPv4Network("127.0.0.0/8"), IPv6Network("::1/128"))

# Each pattern takes linear time, whatever the bytes. Possessive quantifiers would say so outright, but match wrongly
# before Python 3.11.5 (python/cpython#106052).

# An address, with or without a port, which may be obfuscated (RFC 7239 section 6); IPv6 with a port only in brackets.
_NODE: Final = re.compile(
    rb"(?:\[([0-9A-Fa-f.]*:[0-9A-Fa-f:.]*)\]|([0-9.]+))(?::(?:[0-9]{1,5}|_[0-9A-Za-z._-]+))?|([0-9A-Fa-f:.]+)"
)
# One forwarded-pair and its ";" (RFC 7239 section 4), or the ";" alone. More than a token is taken unquoted, because
# proxies write "host=a:80", and space around ";": neither can be read in two ways.
_PARAMETER: Final = re.compile(
    rb"""[ \t]*(?:([!#$%&'*+.^_`|~0-9A-Za-z-]+)=(?:"((?:[^"\\]|\\.)*)"|([^\s",;]*))[ \t]*)?(?:;|\Z)""", re.DOTALL
)
_QUOTED_PAIR: Final = re.compile(rb"\\(.)", re.DOTALL)
# In reversed text: a comma, or a quoted string that may hold some. Its inner quotes stand before a backslash here, the
# one that opened it before a "=".
_COMMA_OR_QUOTED: Final = re.compile(rb',|"(?:[^"]|"(?=\\))*(?:"|\Z)')


class _Hop(NamedTuple):
    client: str
    trusted: bool


class ClientAddresses:
    """Finds the client of a request. ``trusted`` are the proxies whose ``header`` is believed."""

    def __init__(self, trusted: Sequence[Network], header: bytes, warn: Callable[[str], None]) -> None:
        """``header`` is ``b"x-forwarded-for"`` or ``b"forwarded"``; ``warn`` gets each event name at most once."""
        self._header = header
        self._read_nodes = _READERS[header]
        self._warn = warn
        self._warned: set[str] = set()
        self._hop_of_peer = lru_cache(_CACHED_ADDRESSES)(lambda peer: _hop(address_of(peer), trusted))
        self._hop_of_node = lru_cache(_CACHED_ADDRESSES)(lambda node: _hop(_address_in(node), trusted))

    def find(self, peer: str | None, headers: Mapping[bytes, bytes]) -> str | None:
        """The client as text, an IPv6 one as its /64; None when ``peer``, the TCP peer, has no address.

        ``headers`` has lower-case names; the lines of a repeated one are joined with ``, ``. Raises nothing.
        """
        hop = self._hop_of_peer(peer)
        if hop is None:
            self._warn_once("peer_without_address")
            return None
        if hop.trusted:
            return self._follow(hop, headers.get(self._header, b""))
        if self._header in headers:
            self._warn_once("forwarding_header_from_untrusted_peer")
        return hop.client

    def _follow(self, hop: _Hop, value: bytes) -> str:
        """The client that the trusted ``hop`` names; the last hop known where the chain breaks off or grows too long.

        An empty element breaks it as well, though lists may hold some (RFC 9110 section 5.6.1): it can also be a
        proxy's word for a hop without an address, and to skip it would be to believe what that hop wrote.
        """
        if len(value) > _MAX_HEADER_BYTES:  # "?" makes the element that is cut through an address in neither header
            value = b"?" + value[-_MAX_HEADER_BYTES:]
        for node in islice(self._read_nodes(value), _MAX_HOPS):
            next_hop = self._hop_of_node(node) if len(node) <= _MAX_NODE_BYTES else None
            if next_hop is None:
                break
            hop = next_hop
            if not hop.trusted:
                break
        return hop.client

    def _warn_once(self, event: str) -> None:
        if event not in self._warned:
            self._warned.add(event)
            self._warn(event)


def parse_networks(text: str) -> list[Network]:
    """Networks and single addresses, separated by commas or spaces; ``loopback`` stands for 127.0.0.0/8 and ::1.

    Raises ValueError, whose text names the part that is wrong.
    """
    networks: list[Network] = []
    for part in text.replace(",", " ").split():
        networks.extend(_LOOPBACK if part == "loopback" else [_parse_network(part)])
    return networks


def address_of(peer: str | None) -> Address | None:
    """The address in ``peer``, without its zone, an IPv4-mapped one as IPv4; None when it is none (a Unix socket)."""
    try:
        address = ip_address((peer or "").partition("%")[0])
    except ValueError:
        return None
    return (address.ipv4_mapped or address) if isinstance(address, IPv6Address) else address


def in_networks(address: Address | None, networks: Iterable[Network]) -> bool:
    """Whether ``address``, as ``address_of`` gives it, lies in one of ``networks``."""
    return address is not None and any(address in network for network in networks)


@lru_cache(_CACHED_ADDRESSES)
def network_of(client: str | None) -> str:
    """The network that an address is in, roughly: what stays the same when a phone changes masts or a home its IPv6
    prefix; a /24 or a /48. In: as ``ClientAddresses.find`` gives it.
    """
    if client is None:
        return ""
    address = ip_address(client.partition("/")[0])
    return str(ip_network((address, 24 if isinstance(address, IPv4Address) else 48), strict=False))


def _parse_network(part: str) -> Network:
    try:
        network = ip_network(part, strict=False)
    except ValueError:
        network = None
    if network is None or "%" in part:
        raise ValueError(f"{part!r} is neither an address, nor a network such as 10.0.0.0/8, nor the word loopback")
    if ip_address(part.partition("/")[0]) != network.network_address:
        raise ValueError(f"{part!r} has bits set behind its prefix; was {network} meant?")
    if isinstance(network, IPv6Network) and network.prefixlen >= 96 and network.network_address.ipv4_mapped:
        return IPv4Network((network.network_address.ipv4_mapped, network.prefixlen - 96))  # as address_of maps
    return network


def _hop(address: Address | None, trusted: Sequence[Network]) -> _Hop | None:
    if address is None:
        return None
    # A site holds at least a /64, 2^64 addresses (RFC 6177 section 2): to count each alone would be not to count.
    client = IPv6Network((address, 64), strict=False) if isinstance(address, IPv6Address) else address
    return _Hop(str(client), in_networks(address, trusted))


def _address_in(node: bytes) -> Address | None:
    match = _NODE.fullmatch(node)
    return None if match is None else address_of((match[1] or match[2] or match[3]).decode())


def _read_x_forwarded_for(value: bytes) -> Iterator[bytes]:
    """The elements, from the right. Quotes mean nothing here."""
    return (element.strip(b" \t") for element in reversed(value.split(b",")))


def _read_forwarded(value: bytes) -> Iterator[bytes]:
    """The ``for`` of each element, from the right, ``b""`` where it has none.

    Read from the left, a quote that a client opened would swallow what the proxies wrote after it.
    """
    backwards, start = value[::-1], 0
    for match in _COMMA_OR_QUOTED.finditer(backwards):
        if match[0] == b",":
            yield _for_in(backwards[start : match.start()][::-1])
            start = match.end()
    yield _for_in(backwards[start:][::-1])


def _for_in(element: bytes) -> bytes:
    """The value of ``for``; ``b""`` when it stands there never or twice, or anything breaks RFC 7239 section 4."""
    nodes, start = [], 0
    while start < len(element):
        parameter = _PARAMETER.match(element, start)
        if parameter is None:
            return b""
        name, quoted, plain = parameter.groups()
        if name is not None and name.lower() == b"for":
            nodes.append(plain if quoted is None else _QUOTED_PAIR.sub(rb"\1", quoted))
        start = parameter.end()
    return nodes[0] if len(nodes) == 1 else b""


_READERS: Final = {b"x-forwarded-for": _read_x_forwarded_for, b"forwarded": _read_forwarded}
