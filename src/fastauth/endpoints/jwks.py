"""``GET /.well-known/jwks.json``: the public keys (RFC 7517), cacheable."""

from fastauth.endpoints.http import Request, Response
from fastauth.jose.keyring import JWKS_MAX_AGE_S, KeyRing


class JwksEndpoint:
    """Answers from bytes made once."""

    def __init__(self, ring: KeyRing) -> None:
        self._etag = ring.etag.encode()
        caching = (
            (b"cache-control", b"public, max-age=%d" % JWKS_MAX_AGE_S),
            (b"etag", self._etag),
        )
        self._full = Response(200, ((b"content-type", b"application/jwk-set+json"), *caching), ring.jwks)
        self._unchanged = Response(304, caching, b"")

    def __call__(self, request: Request) -> Response:
        """304 when the client has this very document (RFC 9110 section 13.1.2)."""
        wanted = request.headers.get(b"if-none-match", b"")
        tags = [tag.strip().removeprefix(b"W/") for tag in wanted.split(b",")]
        return self._unchanged if b"*" in tags or self._etag in tags else self._full
