"""``grant_type=client_credentials`` (RFC 6749 section 4.4): a client asks for a token of its own."""

from collections.abc import Mapping
from typing import Final

from fastauth.domain.clients import Client
from fastauth.domain.errors import InvalidClient, UnauthorizedClient
from fastauth.endpoints.http import Request
from fastauth.jose.issuer import IssuedToken, Issuer


class ClientCredentialsGrant:
    """Entitled is the client. There is no session and no refresh token (section 4.4.3)."""

    name: Final = "client_credentials"

    def __init__(self, issuer: Issuer) -> None:
        self._issuer = issuer

    async def admit(self, request: Request) -> None:
        """The limit of the client is enough."""

    async def authorize(
        self, _request: Request, client: Client | None, _fields: Mapping[str, str], _now_us: int
    ) -> Client:
        """Raises InvalidClient for the public client, UnauthorizedClient for one without this grant."""
        if client is None:
            raise InvalidClient
        if self.name not in client.grants:
            raise UnauthorizedClient("this client may not use client_credentials")
        return client

    def scope(self, client: Client) -> str | None:
        """That of the client."""
        return client.scope

    def issue(self, client: Client, scope: str | None, now_s: int) -> IssuedToken:
        """A token whose subject is the client."""
        return self._issuer.issue_client_token(client.client_id, scope, now_s)

    async def settle(self, _client: Client) -> None:
        """Nothing is written."""
