"""What can be wrong with a request before any rule of the domain is asked."""

from fastauth.domain.errors import FastauthError


class BadRequest(FastauthError):
    """A request that no server should guess at."""

    code = "bad_request"


class MalformedBody(FastauthError):
    """The body is not what the endpoint takes; the text says what is wrong and never quotes it."""

    code = "malformed_body"


class BodyTooLarge(FastauthError):
    """More bytes than any request of this server needs."""

    code = "body_too_large"


class BodyTimeout(FastauthError):
    """The body did not arrive in time."""

    code = "body_timeout"


class BodyAborted(FastauthError):
    """The body broke off; nothing was done with it."""

    code = "body_aborted"


class UnsupportedMediaType(FastauthError):
    """The body is of another media type, or encoded."""

    code = "unsupported_media_type"


class PathNotFound(FastauthError):
    """Nothing is served here."""

    code = "path_not_found"


class NotForYou(FastauthError):
    """What is served here is for the operator's own network."""

    code = "forbidden"


class MethodNotAllowed(FastauthError):
    """The path exists, the method does not."""

    code = "method_not_allowed"

    def __init__(self, allowed: tuple[str, ...]) -> None:
        super().__init__(f"this path takes {', '.join(allowed)}")
        self.allowed = allowed


class TokenMissing(FastauthError):
    """No bearer token came with the request (RFC 6750 section 3.1: the challenge then names no error)."""

    code = "token_missing"


class BearerTwice(FastauthError):
    """The access token came in more than one way (RFC 6750 section 3.1: invalid_request)."""

    code = "bearer_twice"


class NoSession(FastauthError):
    """The token belongs to no session that could be ended: it is a client's own."""

    code = "no_session"


class InvalidRequest(FastauthError):
    """A malformed request to an OAuth endpoint (RFC 6749 section 5.2); the text never quotes it."""

    code = "invalid_request"


class UnsupportedGrantType(FastauthError):
    """A grant that this server does not have (RFC 6749 section 5.2)."""

    code = "unsupported_grant_type"


class ClientLeft(FastauthError):
    """Whoever asked closed the connection before there was an answer."""

    code = "client_left"
