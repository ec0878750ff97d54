"""``GET /.well-known/oauth-authorization-server`` (RFC 8414): where everything is and what is supported."""

from collections.abc import Sequence
from typing import Final
from urllib.parse import urlsplit

import msgspec

from fastauth.endpoints.client_authentication import METHODS
from fastauth.endpoints.openapi import Operation

PATH: Final = "/.well-known/oauth-authorization-server"


class ServerMetadata(msgspec.Struct):
    """RFC 8414 section 2."""

    issuer: str
    token_endpoint: str
    jwks_uri: str
    revocation_endpoint: str
    introspection_endpoint: str
    grant_types_supported: list[str]
    response_types_supported: list[str]
    token_endpoint_auth_methods_supported: list[str]
    revocation_endpoint_auth_methods_supported: list[str]
    introspection_endpoint_auth_methods_supported: list[str]


OPERATION: Final = Operation(
    summary="Where everything is and what is supported (RFC 8414)", answers={200: ServerMetadata, 304: None}
)


def server_metadata(issuer_url: str, grants: Sequence[str]) -> bytes:
    """The document. Every URL is made from the configured issuer, never from a request."""
    base = issuer_url.rstrip("/")
    return msgspec.json.encode(
        ServerMetadata(
            issuer=issuer_url,
            token_endpoint=f"{base}/token",
            jwks_uri=f"{base}/.well-known/jwks.json",
            revocation_endpoint=f"{base}/revoke",
            introspection_endpoint=f"{base}/introspect",
            grant_types_supported=list(grants),
            response_types_supported=[],  # required, and there is no authorization endpoint
            token_endpoint_auth_methods_supported=[*METHODS, "none"],
            revocation_endpoint_auth_methods_supported=[*METHODS, "none"],
            introspection_endpoint_auth_methods_supported=list(METHODS),
        )
    )


def metadata_paths(issuer_url: str) -> list[str]:
    """Where clients look for it: of an issuer with a path, behind that path too (RFC 8414 section 3.1)."""
    path = urlsplit(issuer_url).path.rstrip("/")
    return [PATH] if not path else [PATH, PATH + path]
