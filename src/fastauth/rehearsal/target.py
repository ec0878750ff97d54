"""Whom a rehearsal may load: this machine, and what its user has listed as their own."""

import ipaddress
import socket
import ssl
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from fastauth.domain.origins import Origin, parse_origin
from fastauth.rehearsal.connections import Endpoint
from fastauth.rehearsal.errors import RehearsalRefused


class Target(NamedTuple):
    """An origin that may be loaded, and the address that was looked up once for all of the run."""

    origin: Origin
    address: str
    tls: ssl.SSLContext | None

    @property
    def endpoint(self) -> Endpoint:
        return Endpoint(self.address, self.origin.port, self.tls, self.origin.host if self.tls else None)

    @property
    def is_this_machine(self) -> bool:
        return ipaddress.ip_address(self.address).is_loopback


def open_target(text: str, listed: Sequence[str], ca_file: Path | None) -> Target:
    """In: the URL, the origins of ``rehearsal.targets``, who vouches for the certificate (None: the system's).

    A host is resolved here and never again, so that what was checked is what is loaded. Raises RehearsalRefused for a
    URL that is none, a name that does not resolve, and a target that is neither loopback nor listed.
    """
    try:
        origin = parse_origin(text)
    except ValueError as error:
        raise RehearsalRefused(f"the target {error}") from None
    addresses = _resolve(origin)
    if origin not in map(parse_origin, listed) and not all(ipaddress.ip_address(one).is_loopback for one in addresses):
        secure = origin._replace(
            scheme="https", port=443 if origin.port == 80 else origin.port
        )  # users log in for real
        raise RehearsalRefused(
            f"{origin} is not on this machine and not listed as yours; a rehearsal is a load that takes servers down. "
            f'If it is yours, list it in fastauth.toml: [rehearsal] targets = ["{secure}"], '
            f"or set FASTAUTH_REHEARSAL__TARGETS={secure}"
        )
    tls = tls_context(ca_file) if origin.is_https else None
    return Target(origin, _reachable(origin, addresses), tls)


def tls_context(ca_file: Path | None) -> ssl.SSLContext:
    """Verifies certificates and names. Raises RehearsalRefused for a file that holds no certificates."""
    try:
        context = ssl.create_default_context(cafile=ca_file)
    except OSError:  # SSLError is one, and its text is of no use to a person
        raise RehearsalRefused(f"{ca_file}: not a file of PEM certificates") from None
    context.set_alpn_protocols(["http/1.1"])
    return context


def _resolve(origin: Origin) -> list[str]:
    try:
        found = socket.getaddrinfo(origin.host, origin.port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise RehearsalRefused(f"{origin.host}: no such host ({error.strerror or 'cannot be resolved'})") from None
    return list(dict.fromkeys(str(one[4][0]).partition("%")[0] for one in found))


def _reachable(origin: Origin, addresses: Sequence[str]) -> str:
    """The first address that takes a connection. Raises RehearsalRefused."""
    reason = "nothing answers"
    for address in addresses:
        try:
            socket.create_connection((address, origin.port), timeout=5.0).close()
        except OSError as error:
            reason = error.strerror or "no answer within 5 s"
        else:
            return address
    raise RehearsalRefused(f"{origin} cannot be reached: {reason.lower()}; is the server running there?")
