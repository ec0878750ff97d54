"""What a login is held to before its password is checked: its address, everybody together, its account."""

import re
from collections.abc import Awaitable
from hashlib import blake2b
from typing import Final, Protocol

from fastauth.domain.devices import DeviceTokens
from fastauth.domain.errors import Overloaded
from fastauth.domain.users import User
from fastauth.endpoints.http import Request
from fastauth.endpoints.rate_limit import AddressLimit, NamedLimit, RateLimit
from fastauth.limits import Attempt, Decision, GuessBudget

# How long one more attempt waits for those under way, when nothing but they stands against it.
GUESS_WAIT_S: Final = 3.0
_UNLIMITED: Final = Decision(True, 0, 0)
EVERYBODY: Final = "everybody"
DEVICE_COOKIE: Final = b"__Host-fastauth-device"
DEVICE_HEADER: Final = b"login-device"
_COOKIE: Final = re.compile(rb"(?:^|;)[ \t]*" + DEVICE_COOKIE + rb"=([^;\s]*)")


class Guesses(Protocol):
    """What the login does with its guess budget."""

    async def reserve(self, account: str, device: str | None) -> Attempt: ...


class GuessLimit:
    """Failed attempts of one account, however many addresses they come from.

    A device from which the account's owner has logged in before has a budget of its own, so that strangers who spend
    the account's do not keep the owner out.
    """

    def __init__(self, account: NamedLimit, device: NamedLimit, budget: GuessBudget) -> None:
        self._account = account
        self._device = device
        self._budget = budget

    async def reserve(self, account: str, device: str | None) -> Attempt:
        """An attempt, to be settled. In: ``device`` the nonce of a known one.

        Raises RateLimited when failures have spent the budget, Overloaded when attempts under way held it for too long.
        """
        named, whose = (self._account, account) if device is None else (self._device, device)
        is_shadow = named.limit.is_shadow
        try:
            attempt = await self._budget.reserve(named.key(whose), 0.0 if is_shadow else GUESS_WAIT_S)
        except Overloaded:
            if not is_shadow:
                raise
            attempt = Attempt(Decision(False, 0, 0))
        named.judge(attempt.decision)
        return attempt


class LoginLimits:
    """The limits of ``POST /auth``; each of them may be absent."""

    def __init__(
        self,
        per_address: AddressLimit | None = None,
        overall: RateLimit | None = None,
        guesses: Guesses | None = None,
        devices: DeviceTokens | None = None,
    ) -> None:
        self._per_address = per_address
        self._overall = overall
        self._guesses = guesses
        self.devices = devices if guesses is not None else None

    def take_of_address(self, request: Request) -> Decision | Awaitable[Decision]:
        """The token that every attempt costs its address, before anything else: what one address may not, it shall not
        take from everybody either. ``judge_address`` says what follows.
        """
        return _UNLIMITED if self._per_address is None else self._per_address.take(request)

    def judge_address(self, request: Request, decision: Decision) -> None:
        """Raises RateLimited."""
        if self._per_address is not None:
            self._per_address.judge(request, decision)

    async def admit(self) -> None:
        """The token that every attempt costs everybody together. Raises RateLimited."""
        if self._overall is not None:
            await self._overall.admit(EVERYBODY)

    async def reserve(self, username: str, name: str | None, device: str | None) -> Attempt:
        """Room in the guess budget. In: the name as sent, its canonical form (None: it has none), a known device.

        Never asks whether there is such an account. Raises RateLimited, Overloaded.
        """
        if self._guesses is None:
            return Attempt(Decision(True, 0, 0))
        return await self._guesses.reserve(_digest(username) if name is None else name, device)

    def known_device(self, request: Request, user: User | None, now_s: int) -> str | None:
        """The nonce of a device from which this user has logged in before."""
        token = presented_device(request)
        if self.devices is None or user is None or token is None:
            return None
        return self.devices.check(token, user, now_s)


def presented_device(request: Request) -> bytes | None:
    """What the client says of its device: the header, else the cookie."""
    token = request.headers.get(DEVICE_HEADER)
    if token is None and (cookies := request.headers.get(b"cookie")):
        found = _COOKIE.search(cookies)
        token = found and found[1]
    return token


def _digest(username: str) -> str:
    """A name that no account can have, in a length that fits a key; the space keeps it apart from every real name."""
    return " " + blake2b(username.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
