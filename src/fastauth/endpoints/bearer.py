"""The access token of a request (RFC 6750 section 2.1): in the Authorization header, and nowhere else."""

from fastauth.endpoints.errors import BearerTwice, TokenMissing
from fastauth.endpoints.http import Request


def bearer_token(request: Request) -> bytes:
    """Raises TokenMissing, or BearerTwice when the URL carries one as well (section 3.1)."""
    scheme, _, token = request.headers.get(b"authorization", b"").partition(b" ")
    if scheme.lower() != b"bearer":
        raise TokenMissing
    if request.query and b"access_token=" in request.query:
        raise BearerTwice
    return token
