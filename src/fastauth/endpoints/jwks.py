"""``GET /.well-known/jwks.json``: the public keys (RFC 7517), cacheable."""

from fastauth.endpoints.http import Request, Response
from fastauth.jose.keyring import KeyRing


class JwksEndpoint:
    """Answers from bytes made once a ring."""

    def __init__(self, ring: KeyRing, max_age_s: int) -> None:
        """In: ``max_age_s`` seconds for which anybody may keep the document."""
        self._cache_control = (b"cache-control", b"public, max-age=%d" % max_age_s)
        self.use_ring(ring)

    def use_ring(self, ring: KeyRing) -> None:
        """Publish this ring from now on."""
        etag = ring.etag.encode()
        caching = (self._cache_control, (b"etag", etag))
        full = Response(200, ((b"content-type", b"application/jwk-set+json"), *caching), ring.jwks)
        self._answers = (etag, full, Response(304, caching, b""))

    def __call__(self, request: Request) -> Response:
        """304 when the client has this very document (RFC 9110 section 13.1.2)."""
        etag, full, unchanged = self._answers
        wanted = request.headers.get(b"if-none-match", b"")
        tags = [tag.strip().removeprefix(b"W/") for tag in wanted.split(b",")]
        return unchanged if b"*" in tags or etag in tags else full
