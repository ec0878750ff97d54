"""``http``: a service of the operator's that checks passwords.

``POST`` with JSON ``{"username", "password"}``: 200 ``{"subject", "claims"}`` is yes, 401 no, 404 not known there.
Anything else, and silence, is no verdict.
"""

import asyncio
import secrets
from typing import Any, Final

import aiohttp
import msgspec

from fastauth import core
from fastauth.backends.identity import IdentitySettings, http_tls
from fastauth.domain.breaker import RetryBudget
from fastauth.domain.errors import Unavailable
from fastauth.domain.identity import Identity, IdentityRefused, Verdict, check_subject, parse_claims, passed_claims

MAX_ANSWER_BYTES: Final = 64 * 1024
_DEPTH: Final = 16
_DNS_TTL_S: Final = 10
# Shorter than what servers commonly allow: a connection must not be closed there as we send a password.
_KEEP_ALIVE_S: Final = 4.0
RETRY_JITTER_MS: Final = 20


class _Answer(msgspec.Struct):
    """The body of a 200; further members are ignored."""

    subject: str
    claims: dict[str, Any] = {}


_decode = msgspec.json.Decoder(_Answer).decode
_encode = msgspec.json.Encoder().encode


class HttpSource:
    """One session with its pool of connections; to be made, used and closed on one running event loop."""

    name = "http"

    def __init__(self, settings: IdentitySettings) -> None:
        self._url = settings.http_url or ""
        self._claims = parse_claims(settings.http_claims)
        self._retries = RetryBudget()
        headers = {"Content-Type": "application/json", "Accept": "application/json", "User-Agent": "fastauth"}
        if settings.http_bearer is not None:
            headers["Authorization"] = f"Bearer {settings.http_bearer}"
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                limit=0,
                limit_per_host=settings.http_pool_size,
                ssl=http_tls(settings),
                ttl_dns_cache=_DNS_TTL_S,
                keepalive_timeout=_KEEP_ALIVE_S,
            ),
            headers=headers,
            skip_auto_headers=["Accept-Encoding"],
            cookie_jar=aiohttp.DummyCookieJar(),  # one user's cookie must not go along with the next one's password
            auto_decompress=False,
            trust_env=False,
            timeout=aiohttp.ClientTimeout(total=None),  # the time is that of the login, and differs
        )

    async def check(self, username: str, password: str, within_s: float) -> Verdict:
        """As ``Source``."""
        try:
            body = _encode({"username": username, "password": password})
        except UnicodeEncodeError:  # a lone surrogate: no service can have such a password
            return "refused"
        self._retries.earn()
        try:
            async with asyncio.timeout(within_s):
                return await self._ask_again(body)
        except TimeoutError as error:
            raise Unavailable(self.name, "no answer in time") from error
        except (aiohttp.ClientError, OSError, ValueError) as error:
            # Their texts may quote what was received.
            raise Unavailable(self.name, f"{type(error).__name__}") from None

    async def probe(self) -> str:
        """Asks for a user that nobody is: that must be a 401 or a 404."""
        verdict = await self.check(f"fastauth-doctor-{secrets.token_hex(4)}", secrets.token_hex(16), 5.0)
        if isinstance(verdict, Identity):
            raise Unavailable(self.name, "it accepts a user that does not exist, with a password that nobody has")
        return "it refuses a user that does not exist, as it should"

    async def close(self) -> None:
        """As ``Source``."""
        await self._session.close()

    async def _ask_again(self, body: bytes) -> Verdict:
        try:
            return await self._ask(body)
        except (aiohttp.ClientConnectorError, aiohttp.ServerDisconnectedError) as error:
            # Not one byte of an answer: the same question may be asked once more. A certificate stays what it is.
            if isinstance(error, aiohttp.ClientSSLError) or not self._retries.spend():
                raise
        await asyncio.sleep(secrets.randbelow(RETRY_JITTER_MS) / 1000)
        return await self._ask(body)

    async def _ask(self, body: bytes) -> Verdict:
        async with self._session.post(self._url, data=body, allow_redirects=False) as response:
            if response.status not in (200, 401, 404):
                raise Unavailable(self.name, f"it answers with status {response.status}")
            content = await self._read(response)
            if response.status == 401:
                return "refused"
            if response.status == 404:
                return "unknown"
            if response.headers.get("Content-Encoding", "identity").lower() != "identity":
                raise Unavailable(self.name, "its answer is compressed, unasked")
            return self._identity(content)

    async def _read(self, response: aiohttp.ClientResponse) -> bytes:
        """All of it, so that the connection can be used again; where no body is needed, not what is too much."""
        content = bytearray()
        while chunk := await response.content.readany():
            content += chunk
            if len(content) > MAX_ANSWER_BYTES:
                response.close()
                if response.status != 200:
                    break
                raise Unavailable(self.name, f"its answer is larger than {MAX_ANSWER_BYTES} bytes")
        return bytes(content)

    def _identity(self, content: bytes) -> Identity:
        if core.scan_json(content, _DEPTH) != core.JSON_OK:
            raise Unavailable(self.name, "its answer is not strict JSON")
        try:
            answer = _decode(content)
            subject = check_subject(answer.subject)
            claims = passed_claims(answer.claims, self._claims)
        except (msgspec.DecodeError, UnicodeError, RecursionError):
            raise Unavailable(self.name, "its answer is not {'subject': text, 'claims': {...}}") from None
        except IdentityRefused as error:
            raise Unavailable(self.name, str(error)) from None
        return Identity(source=self.name, subject=subject, claims=claims)
