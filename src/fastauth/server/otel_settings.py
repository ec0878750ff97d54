"""``[otel]``: apart from ``tracing.py``, which knows the application."""

from collections.abc import Iterator
from typing import Annotated
from urllib.parse import urlsplit

import msgspec


class OtelSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``[otel]``: the collector, and how many of the traces that begin here are recorded."""

    endpoint: Annotated[str, msgspec.Meta(min_length=1, max_length=4_096)] = "off"
    sample_ratio: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.01

    @property
    def is_on(self) -> bool:
        """Whether there are to be spans."""
        return self.endpoint != "off"

    @property
    def url(self) -> str:
        """Where traces are sent: OTLP over HTTP, below ``/v1/traces`` unless the endpoint has a path of its own."""
        return self.endpoint if urlsplit(self.endpoint).path.strip("/") else f"{self.endpoint.rstrip('/')}/v1/traces"

    def problems(self) -> Iterator[str]:
        """Why it cannot be used."""
        if not self.is_on:
            return
        try:
            parts = urlsplit(self.endpoint)
            is_url = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        except ValueError:
            is_url = False
        if not is_url or parts.username is not None or not self.endpoint.isascii():
            yield "otel.endpoint: must be off or an http(s) URL without user and password, as http://127.0.0.1:4318"
