"""What the clients of a rehearsal do: log in, refresh their sessions, have their access tokens verified."""

from collections.abc import Sequence

from fastauth.rehearsal.clients import Answer, Logins, RefreshChains, member
from fastauth.rehearsal.tally import Tally


class LoginLane(Logins):
    """Each login once, whatever comes of it: who is sent away does not come back, so that the rate stays as planned."""

    def __init__(self, users: Sequence[Sequence[str]], host: bytes, tally: Tally) -> None:
        super().__init__(users, host)
        self._explain = tally.explain

    def answered(self, number: int, answer: Answer) -> None:
        if answer.status != 200:
            self._explain(answer)


class VerifyLane:
    """The access tokens in turn; those that a refresh brings take the place of older ones."""

    def __init__(self, tokens: Sequence[str], host: bytes, tally: Tally) -> None:
        self._host = host
        self._requests = [self._verify(token) for token in tokens]
        self._oldest = 0
        self._explain = tally.explain

    def request(self, number: int) -> bytes:
        return self._requests[number % len(self._requests)]

    def answered(self, number: int, answer: Answer) -> None:
        if answer.status != 200:
            self._explain(answer)

    def renew(self, token: str) -> None:
        self._requests[self._oldest] = self._verify(token)
        self._oldest = (self._oldest + 1) % len(self._requests)

    def _verify(self, token: str) -> bytes:
        return b"GET /verify HTTP/1.1\r\nHost: %b\r\nAuthorization: Bearer %b\r\n\r\n" % (self._host, token.encode())


class RefreshLane(RefreshChains):
    """Sessions that are refreshed one after another."""

    def __init__(self, tokens: Sequence[str], host: bytes, tally: Tally, verifications: VerifyLane | None) -> None:
        super().__init__(tokens, host)
        self._explain = tally.explain
        self._verifications = verifications

    @property
    def left(self) -> int:
        """Sessions that can still be refreshed."""
        return len(self._idle) + len(self._busy)

    def answered(self, number: int, answer: Answer) -> None:
        super().answered(number, answer)
        if answer.status != 200:
            self._explain(answer)
        elif self._verifications is not None and (token := member(answer.body, "access_token")):
            self._verifications.renew(token)
