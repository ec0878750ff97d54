"""A request as an endpoint sees it, with its body at hand."""

from fastauth.endpoints.http import Request, Response


class ReadyRequest(Request):
    """A request whose body has arrived already."""

    __slots__ = ("body", "reads")

    def __init__(
        self,
        body: bytes = b"",
        headers: dict[bytes, bytes] | None = None,
        method: str = "GET",
        path: str = "/",
        peer: str | None = None,
        query: bytes = b"",
    ) -> None:
        super().__init__(method, path, headers or {}, peer, query)
        self.body = body
        self.reads = 0

    async def read_body(self) -> bytes:
        self.reads += 1
        return self.body


def header_of(response: Response, name: str) -> str | None:
    """The one value of a header; None when it is absent."""
    values = [value.decode() for key, value in response.headers if key == name.encode()]
    assert len(values) <= 1, f"{name} stands {len(values)} times"
    return values[0] if values else None
