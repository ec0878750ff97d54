"""Origins (RFC 6454): the scheme, the host and the port of a URL."""

import re
from typing import Final, NamedTuple
from urllib.parse import urlsplit

_DEFAULT_PORTS: Final = {"http": 80, "https": 443}
_HOST: Final = re.compile(r"[a-z0-9._:-]{1,253}")


class Origin(NamedTuple):
    """``host`` in lower case, an IPv6 address without brackets."""

    scheme: str
    host: str
    port: int

    @property
    def is_https(self) -> bool:
        return self.scheme == "https"

    @property
    def authority(self) -> str:
        """As the ``Host`` header has it."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _DEFAULT_PORTS[self.scheme] else f"{host}:{self.port}"

    def __str__(self) -> str:
        return f"{self.scheme}://{self.authority}"


def parse_origin(text: str) -> Origin:
    """In: an http(s) URL without user, path, query and fragment. Raises ValueError, whose text says what is wanted."""
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:  # brackets, or a port that is none
        parts, port = urlsplit(""), None
    host = (parts.hostname or "").lower()
    is_bare = parts.path in ("", "/") and not (parts.query or parts.fragment or "@" in parts.netloc)
    if parts.scheme not in _DEFAULT_PORTS or not _HOST.fullmatch(host) or not is_bare or port == 0:
        raise ValueError("must be like http://127.0.0.1:8000 or https://auth.example: no user, path, query or fragment")
    return Origin(parts.scheme, host, port or _DEFAULT_PORTS[parts.scheme])
