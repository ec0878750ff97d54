"""Who is the client? RFC 6749 section 2.3: ``client_secret_basic``, ``client_secret_post``, or the public client."""

import binascii
from collections.abc import Callable, Mapping
from typing import Final, Protocol

from fastauth.domain.clients import BUILT_IN_CLIENT, Client, ClientSecrets
from fastauth.domain.errors import InvalidClient
from fastauth.endpoints.audit import Audit
from fastauth.endpoints.bodies import form_text
from fastauth.endpoints.errors import InvalidRequest
from fastauth.endpoints.http import Request

METHODS: Final = ("client_secret_basic", "client_secret_post")


class Clients(Protocol):
    """Where clients come from, perhaps through a cache."""

    async def find(self, client_id: str) -> Client | None: ...


class ClientAuthentication:
    """Authenticates the clients of ``/token``, ``/introspect`` and ``/revoke``."""

    def __init__(self, clients: Clients, secrets: ClientSecrets, clock: Callable[[], float], audit: Audit) -> None:
        self._clients = clients
        self._secrets = secrets
        self._clock = clock
        self._audit = audit

    async def authenticate(self, request: Request, fields: Mapping[str, str]) -> Client | None:
        """The client; None for the built-in public one, named or not, which has nothing to authenticate with.

        Raises InvalidClient, whatever the reason, and InvalidRequest for credentials in two places.
        """
        presented = _presented(request, fields)
        if presented is None:
            return None
        client_id, secret = presented
        client = await self._clients.find(client_id)
        is_right = self._secrets.is_right(client, client_id, secret, int(self._clock()))
        if client is None or not is_right or client.disabled:
            # An id that no client has is not written: it may be a secret in the wrong field.
            reason = "unknown" if client is None else "disabled" if client.disabled else "wrong_secret"
            known = None if client is None else client.client_id
            self._audit.record_some("client_refused", request, client_id=known, reason=reason)
            raise InvalidClient
        return client


def _presented(request: Request, fields: Mapping[str, str]) -> tuple[str, str] | None:
    """Client id and secret, None for the public client. Raises as ``authenticate``."""
    authorization = request.headers.get(b"authorization")
    if authorization is not None:
        return _of_header(authorization, fields)
    client_id, secret = fields.get("client_id"), fields.get("client_secret")
    if secret is None:
        if client_id not in (None, BUILT_IN_CLIENT) or "client_assertion" in fields:
            raise InvalidClient
        return None
    if client_id is None:
        raise InvalidRequest("client_secret needs client_id")
    return client_id, secret


def _of_header(authorization: bytes, fields: Mapping[str, str]) -> tuple[str, str]:
    scheme, _, credentials = authorization.partition(b" ")
    if scheme.lower() != b"basic":
        raise InvalidClient
    client_id, secret = _decoded(credentials.strip())
    if "client_secret" in fields or fields.get("client_id", client_id) != client_id:
        raise InvalidRequest("the client authenticates twice: in the header and in the body")
    return client_id, secret


def _decoded(credentials: bytes) -> tuple[str, str]:
    """Client id and secret of a Basic header, each form-encoded (RFC 6749 section 2.3.1)."""
    try:
        client_id, colon, secret = binascii.a2b_base64(credentials, strict_mode=True).partition(b":")
        if colon:
            return form_text(client_id), form_text(secret)
    except (binascii.Error, InvalidRequest):
        pass
    raise InvalidClient
