"""Documents that change rarely: made once as bytes, cacheable, with an ETag."""

from hashlib import sha256
from typing import Final

from fastauth.endpoints.http import JSON, Request, Response

DEFAULT_MAX_AGE_S: Final = 300


class CachedDocument:
    """Answers GET with one body, and 304 to whoever has it (RFC 9110 section 13.1.2)."""

    def __init__(
        self,
        body: bytes,
        media_type: bytes = JSON[1],
        max_age_s: int = DEFAULT_MAX_AGE_S,
        etag: bytes | None = None,
    ) -> None:
        """In: ``max_age_s`` seconds for which anybody may keep it; ``etag`` None for one made from the body."""
        self._etag = b'"' + sha256(body).hexdigest()[:32].encode() + b'"' if etag is None else etag
        caching = ((b"cache-control", b"public, max-age=%d" % max_age_s), (b"etag", self._etag))
        self._full = Response(200, ((b"content-type", media_type), *caching), body)
        self._unchanged = Response(304, caching, b"")

    def __call__(self, request: Request) -> Response:
        wanted = request.headers.get(b"if-none-match", b"")
        tags = [tag.strip().removeprefix(b"W/") for tag in wanted.split(b",")]
        return self._unchanged if b"*" in tags or self._etag in tags else self._full
