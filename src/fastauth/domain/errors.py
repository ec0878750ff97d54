"""Every error that fastauth raises on purpose, each with a stable ``code``; no HTTP in here.

``endpoints/problems.py`` is the one place that turns a code into an answer.
"""


class FastauthError(Exception):
    """The base: ``code`` names the error for programs, ``str()`` explains it to a person.

    Neither ever contains a password, a token or a key.
    """

    code: str = "internal_error"


class Unavailable(FastauthError):
    """A dependency did not answer in time or refused to work; trying again later may help."""

    code = "unavailable"

    def __init__(self, dependency: str, reason: str, retry_after_s: int = 1, *, was_asked: bool = True) -> None:
        """In: ``was_asked`` false when it was spared, so that this says nothing about it."""
        super().__init__(f"{dependency} is unavailable: {reason}")
        self.dependency = dependency
        self.retry_after_s = retry_after_s
        self.was_asked = was_asked


class Overloaded(FastauthError):
    """More work is queued than can be done within a client's patience."""

    code = "overloaded"

    def __init__(self, retry_after_s: int, ticket: str | None = None) -> None:
        """In: a place in line, if there is one: who comes back with it is served before those who came later."""
        super().__init__("too much work is queued")
        self.retry_after_s = retry_after_s
        self.ticket = ticket


class HandlerTimeout(FastauthError):
    """An answer was not ready in time; what was going on for it has been called off."""

    code = "timeout"
    retry_after_s = 1


class Conflict(FastauthError):
    """Something unique exists already."""

    code = "conflict"


class NotFound(FastauthError):
    """What was named does not exist."""

    code = "not_found"


class InvalidCredentials(FastauthError):
    """Unknown name, wrong password or disabled account; deliberately not to be told apart."""

    code = "invalid_credentials"


class IssueFailed(FastauthError):
    """The credentials were right, but no token could be made."""

    code = "issue_failed"


class UserNameRefused(FastauthError):
    """A user name that no account may have; the text says why, without repeating the name."""

    code = "username_refused"


class ScopeRefused(FastauthError):
    """A scope that RFC 6749 section 3.3 does not allow."""

    code = "scope_refused"


class PasswordRefused(FastauthError):
    """A new password outside the accepted bounds."""

    code = "password_refused"


class PasswordHashRefused(FastauthError):
    """A stored or imported password hash of an unknown kind or an absurd cost."""

    code = "password_hash_refused"


class MasterKeyRefused(FastauthError):
    """The master key is unreadable, malformed, or not the one that wrapped the keys in the database."""

    code = "master_key_refused"


class SchemaRefused(FastauthError):
    """The database has a schema that this version does not know."""

    code = "schema_refused"


class InvalidClient(FastauthError):
    """Client authentication failed; why is not the sender's business (RFC 6749 section 5.2)."""

    code = "invalid_client"

    def __init__(self) -> None:
        super().__init__("client authentication failed")


class InvalidGrant(FastauthError):
    """What was presented is unknown, expired, revoked or another client's (RFC 6749 section 5.2)."""

    code = "invalid_grant"


class InvalidScope(FastauthError):
    """A scope that is malformed or goes beyond what may be granted (RFC 6749 section 5.2)."""

    code = "invalid_scope"


class UnauthorizedClient(FastauthError):
    """The client is who it says, and may not do this (RFC 6749 section 5.2)."""

    code = "unauthorized_client"


class ClientRefused(FastauthError):
    """A client that cannot be registered so; the text says why."""

    code = "client_refused"
