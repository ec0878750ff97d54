"""``GET /.well-known/jwks.json``: the public keys (RFC 7517), cacheable."""

from typing import Final

from fastauth.endpoints.documents import CachedDocument
from fastauth.endpoints.http import Request, Response
from fastauth.endpoints.openapi import Operation
from fastauth.jose.keyring import KeyRing

OPERATION: Final = Operation(
    summary="The public keys that verify access tokens (RFC 7517)",
    answers={200: "application/jwk-set+json", 304: None},
)


class JwksEndpoint:
    """Answers from bytes made once a ring."""

    def __init__(self, ring: KeyRing, max_age_s: int) -> None:
        """In: ``max_age_s`` seconds for which anybody may keep the document."""
        self._max_age_s = max_age_s
        self.use_ring(ring)

    def use_ring(self, ring: KeyRing) -> None:
        """Publish this ring from now on."""
        etag = ring.etag.encode()
        self._document = CachedDocument(ring.jwks, b"application/jwk-set+json", self._max_age_s, etag)

    def __call__(self, request: Request) -> Response:
        """304 when the client has this very document."""
        return self._document(request)
