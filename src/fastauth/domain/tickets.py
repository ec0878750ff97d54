"""Place-in-line tickets: proof that somebody has been sent away before, and since when they have waited.

A ticket opens nothing. It says where its holder stands in line, and only for the name and from the addresses for which
it was issued; whether it has been spent is kept elsewhere (``endpoints/login_queue.py``).
"""

import hmac
import struct
from typing import Any, Final

import msgspec

from fastauth.domain.sealed_text import SealedText
from fastauth.domain.waiting_line import RETURN_WINDOW_S

PURPOSE: Final = b"fastauth/v1/login-ticket"

_PASS_BYTES: Final = 8
_FIELDS: Final = f">QQ{_PASS_BYTES}s"  # place, due, pass


class Ticket(msgspec.Struct, frozen=True):
    """``since_us`` is the place in line: when its holder first asked, in microseconds since 1970 UTC; ``due_s`` when to
    come back, in seconds since then.
    """

    since_us: int
    due_s: int


class Tickets:
    """Makes and checks the tickets of one installation. In: ``key`` 32 secret bytes for ``PURPOSE``."""

    def __init__(self, key: bytes) -> None:
        self._key = key
        self._sealed = SealedText(key, _FIELDS)

    def issue(self, ticket: Ticket, name: str, network: str) -> str:
        """The text of a ticket for this name, to be brought back from this network."""
        fields = (ticket.since_us, ticket.due_s, self._pass(ticket.since_us, ticket.due_s, network))
        return self._sealed.seal(fields, _message(fields, name, network))

    def check(self, text: bytes, name: str, network: str, now_s: int) -> Ticket | None:
        """The ticket when it is genuine, this name's, from this network, and not too late; else None."""
        fields = self._sealed.open(text, lambda fields: _message(fields, name, network))
        if fields is None or now_s > fields[1] + RETURN_WINDOW_S:
            return None
        return Ticket(fields[0], fields[1])

    def due_s(self, text: bytes, network: str, now_s: int) -> int | None:
        """When a ticket of this installation from this network is due, whatever the name; None for any other text, and
        when it is too late: a part of it tells before anything but the headers is here. ``check`` decides.
        """
        fields = self._sealed.read(text)
        if fields is None or now_s > fields[1] + RETURN_WINDOW_S:
            return None
        is_ours = hmac.compare_digest(fields[2], self._pass(fields[0], fields[1], network))
        return int(fields[1]) if is_ours else None

    def _pass(self, since_us: int, due_s: int, network: str) -> bytes:
        message = b"pass" + struct.pack(">QQ", since_us, due_s) + network.encode()
        return hmac.digest(self._key, message, "sha256")[:_PASS_BYTES]


def _message(fields: tuple[Any, ...], name: str, network: str) -> bytes:
    since_us, due_s, mark = fields
    who, where = name.encode("utf-8", "surrogatepass"), network.encode()
    # Lengths first, so that no two pairs make one message.
    return struct.pack(">IIQQ", len(who), len(where), since_us, due_s) + bytes(mark) + who + where
