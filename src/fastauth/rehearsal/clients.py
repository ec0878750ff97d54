"""What the clients of an open loop ask, and what they do about an answer."""

import json
from collections import Counter, deque
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple, Protocol
from urllib.parse import urlencode

NEVER_ANSWERED: Final = 0
LEFT: Final = -1


class Answer(NamedTuple):
    """An HTTP answer: the status, the head from the status line on, the body.

    Status 0 is an answer that never came, -1 one that the client did not wait for; both are otherwise empty.
    """

    status: int
    head: bytes = b""
    body: bytes = b""

    def header(self, name: bytes) -> bytes | None:
        """In: the name in lower case."""
        at = self.head.lower().find(b"\r\n" + name + b":")
        return None if at < 0 else self.head[at + 2 :].partition(b"\r\n")[0].partition(b":")[2].strip()


class Again(NamedTuple):
    """The same client comes back after so many seconds, with this request."""

    delay_s: float
    request: bytes


class Behaviour(Protocol):
    """Makes requests. May also have ``answered``, as ``Attentive`` has."""

    def request(self, number: int) -> bytes | None:
        """The request of the n-th client, asked for when it can be sent; None as long as it has to wait."""


class Attentive(Behaviour, Protocol):
    """Is told every outcome, also that there was no answer."""

    def answered(self, number: int, answer: Answer) -> Again | None:
        """Whether the n-th client comes back."""


class FixedRequests:
    """These requests in turn."""

    def __init__(self, requests: Iterable[bytes | str]) -> None:
        self._requests = [one.encode() if isinstance(one, str) else one for one in requests]

    def request(self, number: int) -> bytes:
        return self._requests[number % len(self._requests)]


class Logins:
    """``POST /auth`` for these pairs of username and password in turn, whatever comes of it."""

    def __init__(self, users: Iterable[Sequence[str]], host: bytes = b"localhost") -> None:
        self._users = list(users)
        self._host = host

    def request(self, number: int) -> bytes:
        return self._login(number)

    def _login(self, number: int, *headers: bytes) -> bytes:
        username, password = self._users[number % len(self._users)]
        body = json.dumps({"username": username, "password": password}).encode()
        return post(b"/auth", b"application/json", body, *headers, host=self._host)


class TicketLogins(Logins):
    """Logins that keep their place: after a 503 with a ticket and ``Retry-After`` they come back with the ticket then.

    A client gives up after ``most_returns``.
    """

    def __init__(self, users: Iterable[Sequence[str]], most_returns: int = 20) -> None:
        super().__init__(users)
        self._most_returns = most_returns
        self._returns: Counter[int] = Counter()

    def answered(self, number: int, answer: Answer) -> Again | None:
        if answer.status != 503 or self._returns[number] >= self._most_returns:
            return None
        ticket, retry_after = member(answer.body, "ticket"), answer.header(b"retry-after")
        if ticket is None or retry_after is None:
            return None
        self._returns[number] += 1
        return Again(float(retry_after), self._login(number, b"Login-Ticket: " + ticket.encode()))


class RefreshChains:
    """Sessions that refresh with the token of their last answer; the one that has waited longest is the next.

    A request waits while every chain has one under way. A chain ends when its token is refused (400 or 401); after any
    other failure it goes on with the token that it has.
    """

    def __init__(self, tokens: Iterable[str], host: bytes = b"localhost") -> None:
        self._idle = deque(tokens)
        self._host = host
        self._busy: dict[int, str] = {}

    def request(self, number: int) -> bytes | None:
        if not self._idle:
            return None
        token = self._busy[number] = self._idle.popleft()
        form = urlencode({"grant_type": "refresh_token", "refresh_token": token}).encode()
        return post(b"/token", b"application/x-www-form-urlencoded", form, host=self._host)

    def answered(self, number: int, answer: Answer) -> None:
        token = self._busy.pop(number, None)  # None: no chain was free in all the time that the client had
        if token is not None and answer.status not in (400, 401):
            self._idle.append(member(answer.body, "refresh_token") or token)


def post(path: bytes, content_type: bytes, body: bytes, *headers: bytes, host: bytes = b"localhost") -> bytes:
    """A POST for a connection that stays open; ``headers`` are whole lines."""
    more = b"".join(line + b"\r\n" for line in headers)
    return b"POST %b HTTP/1.1\r\nHost: %b\r\nContent-Type: %b\r\nContent-Length: %d\r\n%b\r\n%b" % (
        path,
        host,
        content_type,
        len(body),
        more,
        body,
    )


def member(body: bytes, name: str) -> str | None:
    """A text of a JSON object; None if it is not there."""
    try:
        value = json.loads(body)[name]
    except (ValueError, KeyError, TypeError):
        return None
    return value if isinstance(value, str) else None
