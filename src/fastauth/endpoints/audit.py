"""The audit stream as the endpoints see it: what happened to an account, a session, a client or a key, and by whom.

Every event and its fields are in ``docs/logging.md``.
"""

from hashlib import blake2b
from typing import Any, Final, Literal, Protocol

from fastauth.domain.limits import RateLimited
from fastauth.domain.users import User
from fastauth.endpoints.http import Request

PURPOSE: Final = b"fastauth/v1/audit-names"
_DIGEST_BYTES: Final = 8

Level = Literal["info", "warning"]


class Audit(Protocol):
    """Where events go. None of these raises anything, and none waits."""

    @property
    def is_in_log(self) -> bool:
        """Whether whoever reads the log reads these events too."""
        ...

    def record(self, event: str, request: Request | None = None, level: Level = "info", **values: Any) -> None:
        """Never left out, however many there are."""

    def record_some(self, event: str, request: Request | None = None, **values: Any) -> None:
        """A line each up to a bounded rate; how many more there were is told once a second."""

    def count(self, event: str) -> None:
        """Only how many there were, once a second."""

    def close(self) -> None:
        """Tell what was counted and not told yet, and let go of the file."""


class Silent:
    """An audit stream that is off."""

    is_in_log: Final = False

    def record(self, event: str, request: Request | None = None, level: Level = "info", **values: Any) -> None:
        """Nothing."""

    def record_some(self, event: str, request: Request | None = None, **values: Any) -> None:
        """Nothing."""

    def count(self, event: str) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""


SILENT: Final = Silent()


class LoginAudit:
    """What is told of logins.

    A name that was typed is never written: it may be a password in the wrong field. In its place stands a keyed
    digest, for known and unknown names alike, so that each kind of refusal costs the same work.
    """

    def __init__(self, audit: Audit, digest_key: bytes) -> None:
        """In: 32 secret bytes for ``PURPOSE``."""
        self._audit = audit
        self._digest_key = digest_key

    def succeeded(self, request: Request, typed: str, name: str | None, user: User, sid: str, device: str) -> None:
        """In: the name as it was typed and its canonical form; ``device`` is ``known`` or ``new``."""
        self._audit.record(
            "login_succeeded",
            request,
            sub=user.sub,
            name_digest=self._digest(typed, name),
            source=user.source,
            sid=sid,
            device=device,
        )

    def refused(self, request: Request, typed: str, name: str | None, user: User | None, reason: str) -> None:
        """In: as above; the account that has this name, if any."""
        self._audit.record_some(
            "login_refused",
            request,
            sub=None if user is None else user.sub,
            name_digest=self._digest(typed, name),
            reason=reason,
        )

    def limited(self, request: Request, refusal: RateLimited) -> None:
        """A limit refused it before the password was looked at."""
        self._audit.record_some("login_limited", request, limit=refusal.limit, retry_after_s=refusal.retry_after_s)

    def sent_away(self) -> None:
        """It was overload: nobody was refused for what they are."""
        self._audit.count("login_sent_away")

    def _digest(self, typed: str, name: str | None) -> str:
        text = typed if name is None else name
        return blake2b(
            text.encode("utf-8", "surrogatepass"), key=self._digest_key, digest_size=_DIGEST_BYTES
        ).hexdigest()
