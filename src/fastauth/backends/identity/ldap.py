"""``ldap``: a directory, asked as ``docs/identity.md`` says: bind as ourselves, search the user, bind as the user.

python-ldap waits in C, so the calls are made in a few threads of their own, each with two connections that are kept:
one is bound as ourselves and only searches, the other is bound as whoever logs in. Every single operation is bounded by
what is left of the login's time, and whoever gives up closes the connection under the thread that waits on it.
"""

import asyncio
import contextlib
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable
from typing import Any, Final, TypeVar

import ldap
import ldap.filter
from ldap.ldapobject import SimpleLDAPObject

from fastauth.backends.identity import IdentitySettings, group_scopes, normal_dn
from fastauth.backends.work_pool import WorkPool
from fastauth.domain.breaker import RetryBudget
from fastauth.domain.errors import Overloaded, Unavailable
from fastauth.domain.identity import Identity, IdentityRefused, Verdict, check_subject, parse_claims, passed_claims

T = TypeVar("T")

_EXPECTED_S: Final = 0.005
_IDLE_S: Final = 30.0  # after that a connection is tried before it is used
_LATER_S: Final = 0.05
_JITTER_MS: Final = 20
_MOST_GROUPS: Final = 1_000
# The directory knows the user and does not let him in: the password is wrong or missing, the account is locked.
_REFUSED: Final = (ldap.INVALID_CREDENTIALS, ldap.INAPPROPRIATE_AUTH, ldap.CONSTRAINT_VIOLATION)
# The connection was closed since it was used last; whatever was asked of it can be asked again.
_LOST: Final = (ldap.SERVER_DOWN, ldap.CONNECT_ERROR)


class LdapSource:
    """The threads of one process and their connections; to be made, used and closed on one running event loop."""

    name = "ldap"

    def __init__(self, settings: IdentitySettings) -> None:
        self._settings = settings
        self._claims = parse_claims(settings.ldap_claims)
        self._scopes = group_scopes(settings.ldap_group_scopes)
        self._pool = WorkPool(settings.ldap_pool_size, _EXPECTED_S, name="ldap")
        self._retries = RetryBudget()
        self._of_thread = threading.local()
        self._pairs: list[_Pair] = []

    async def check(self, username: str, password: str, within_s: float) -> Verdict:
        """As ``Source``."""
        if not password:  # to a directory that is an anonymous bind, which succeeds (RFC 4513 section 5.1.2)
            return "refused"
        question = _Question(within_s)
        try:
            async with asyncio.timeout(within_s):
                return await self._pool.run(lambda: self._ask(question, username, password))
        except TimeoutError as error:
            raise Unavailable(self.name, "no answer in time") from error
        except Overloaded as error:
            raise Unavailable(
                self.name, "too many calls wait for it already", error.retry_after_s, was_asked=False
            ) from None
        finally:
            question.give_up()

    async def probe(self) -> str:
        """Binds as ourselves and looks for the base."""
        question = _Question(5.0)

        def look() -> str:
            pair = self._pair()
            pair.use(question)
            connection = pair.searching(question)
            base = self._settings.ldap_base_dn or ""
            _result(connection, connection.search(base, ldap.SCOPE_BASE, "(objectClass=*)", ["1.1"]), question)
            return f"it lets us in, and has {base}"

        try:
            async with asyncio.timeout(6):
                return await self._pool.run(lambda: self._guarded(question, look))
        except TimeoutError as error:
            raise Unavailable(self.name, "no answer in time") from error
        finally:
            question.give_up()

    async def close(self) -> None:
        """As ``Source``."""
        for pair in self._pairs:
            pair.cut()
        await asyncio.get_running_loop().run_in_executor(None, self._pool.close)
        for pair in self._pairs:
            pair.close()

    # -- in a thread of the pool

    def _pair(self) -> "_Pair":
        pair: _Pair | None = getattr(self._of_thread, "pair", None)
        if pair is None:
            pair = self._of_thread.pair = _Pair(self._settings)
            self._pairs.append(pair)
        return pair

    def _ask(self, question: "_Question", username: str, password: str) -> Verdict:
        self._retries.earn()
        return self._guarded(question, lambda: self._verdict(question, username, password))

    def _guarded(self, question: "_Question", work: Callable[[], T]) -> T:
        try:
            try:
                return work()
            except _LOST:
                self._pair().close()
                if question.left_s() < _LATER_S or not self._retries.spend():
                    raise
            time.sleep(secrets.randbelow(_JITTER_MS) / 1000)
            return work()
        except Unavailable:
            self._pair().close()
            raise
        except ldap.TIMEOUT:
            self._pair().close()
            raise Unavailable(self.name, "no answer in time") from TimeoutError()
        except (ldap.LDAPError, ValueError) as error:
            self._pair().close()
            # Only the name of the error: what the server adds may quote names.
            raise Unavailable(self.name, type(error).__name__) from None
        finally:
            question.end()

    def _verdict(self, question: "_Question", username: str, password: str) -> Verdict:
        pair = self._pair()
        pair.use(question)
        searching = pair.searching(question)
        found = self._search_user(searching, question, username)
        if found is None:
            return "unknown"
        dn, attributes = found
        try:
            binding = pair.binding(question)
            _result(binding, binding.simple_bind(dn, password), question)
        except _REFUSED:
            return "refused"
        scopes = self._scopes_of(searching, question, dn, username) if self._scopes else ()
        return self._identity(attributes, scopes)

    def _search_user(
        self, connection: SimpleLDAPObject, question: "_Question", username: str
    ) -> tuple[str, dict[str, list[bytes]]] | None:
        wanted = self._settings.ldap_user_filter.replace("{username}", ldap.filter.escape_filter_chars(username))
        names = [self._settings.ldap_subject_attribute, *sorted(self._claims)]
        # Two are enough to know that it is not one.
        number = connection.search_ext(
            self._settings.ldap_base_dn, ldap.SCOPE_SUBTREE, wanted, names, sizelimit=2, timeout=question.seconds()
        )
        try:
            entries = [entry for entry in _result(connection, number, question) if entry[0] is not None]
        except ldap.SIZELIMIT_EXCEEDED:
            entries = [("", {}), ("", {})]
        except ldap.NO_SUCH_OBJECT:
            raise Unavailable(self.name, "there is no entry ldap_base_dn") from None
        if len(entries) > 1:
            raise Unavailable(self.name, "ldap_user_filter finds more than one entry for a name")
        return entries[0] if entries else None

    def _scopes_of(
        self, connection: SimpleLDAPObject, question: "_Question", dn: str, username: str
    ) -> tuple[str, ...]:
        escaped = {"{dn}": dn, "{username}": username}
        wanted = self._settings.ldap_group_filter
        for place, value in escaped.items():
            wanted = wanted.replace(place, ldap.filter.escape_filter_chars(value))
        number = connection.search_ext(
            self._settings.ldap_group_base_dn,
            ldap.SCOPE_SUBTREE,
            wanted,
            ["1.1"],
            sizelimit=_MOST_GROUPS,
            timeout=question.seconds(),
        )
        groups = [normal_dn(entry[0]) for entry in _result(connection, number, question) if entry[0] is not None]
        return tuple(dict.fromkeys(scope for group in groups for scope in self._scopes.get(group, ())))

    def _identity(self, attributes: dict[str, list[bytes]], scopes: tuple[str, ...]) -> Identity:
        values = {name.lower(): value for name, value in attributes.items()}
        ids = values.get(self._settings.ldap_subject_attribute.lower())
        if not ids:
            raise Unavailable(self.name, "the entry has no attribute ldap_subject_attribute")
        try:
            try:
                subject = check_subject(ids[0].decode())
            except (UnicodeDecodeError, IdentityRefused):  # Active Directory's objectGUID is bytes
                subject = check_subject(ids[0].hex())
            claims = {name: _plain(values[name.lower()]) for name in self._claims if name.lower() in values}
            passed = passed_claims(claims, self._claims)
        except (IdentityRefused, UnicodeDecodeError) as error:
            text = str(error) if isinstance(error, IdentityRefused) else "an attribute is not text"
            raise Unavailable(self.name, text) from None
        return Identity(source=self.name, subject=subject, claims=passed, scopes=scopes)


def _plain(values: list[bytes]) -> str | list[str]:
    texts = [value.decode() for value in values]
    return texts[0] if len(texts) == 1 else texts


class _Question:
    """One login's use of a thread: how long it has, and how whoever asked can take it away."""

    def __init__(self, within_s: float) -> None:
        self._until_s = time.monotonic() + within_s
        self._lock = threading.Lock()
        self._pair: _Pair | None = None
        self._is_given_up = False

    def left_s(self) -> float:
        """Seconds; none or less when the time is over or nobody waits any more."""
        return 0.0 if self._is_given_up else self._until_s - time.monotonic()

    def seconds(self) -> float:
        """As ``left_s``. Raises ldap.TIMEOUT when there is nothing left."""
        left_s = self.left_s()
        if left_s <= 0:
            raise ldap.TIMEOUT
        return left_s

    def begin(self, pair: "_Pair") -> None:
        """This pair of connections works for it. Raises ldap.TIMEOUT."""
        with self._lock:
            self.seconds()
            self._pair = pair

    def end(self) -> None:
        """The pair works for it no more."""
        with self._lock:
            self._pair = None

    def give_up(self) -> None:
        """Nobody waits any more; a thread that still works for it is woken."""
        with self._lock:
            self._is_given_up = True
            if self._pair is not None:
                self._pair.cut()


class _Pair:
    """The two connections of a thread."""

    def __init__(self, settings: IdentitySettings) -> None:
        self._settings = settings
        self._lock = threading.Lock()
        self._connections: dict[str, SimpleLDAPObject] = {}
        self._used_s = time.monotonic()

    def use(self, question: _Question) -> None:
        """Begin with a question. Raises ldap.LDAPError for connections that have died while nobody used them."""
        question.begin(self)
        if self._connections and time.monotonic() - self._used_s > _IDLE_S:
            for connection in list(self._connections.values()):
                number = connection.search("", ldap.SCOPE_BASE, "(objectClass=*)", ["1.1"])
                _result(connection, number, question)
        self._used_s = time.monotonic()

    def searching(self, question: _Question) -> SimpleLDAPObject:
        """Bound as ourselves."""
        connection = self._connections.get("searching")
        if connection is None:
            connection = self._connect("searching", question)
            secret = self._settings.ldap_bind_password or ""
            try:
                _result(connection, connection.simple_bind(self._settings.ldap_bind_dn or "", secret), question)
            except _REFUSED:
                raise Unavailable("ldap", "it refuses ldap_bind_dn with ldap_bind_password") from None
        return connection

    def binding(self, question: _Question) -> SimpleLDAPObject:
        """Bound as somebody or other."""
        return self._connections.get("binding") or self._connect("binding", question)

    def cut(self) -> None:
        """From the event loop: end the connections under whoever waits on them, without waiting for the lock: who holds
        it is about to close them, or sees before the next operation that nobody waits any more.
        """
        if not self._lock.acquire(blocking=False):
            return
        try:
            for connection in self._connections.values():
                with contextlib.suppress(OSError, ldap.LDAPError):
                    copy = socket.socket(fileno=os.dup(connection.get_option(ldap.OPT_DESC)))
                    with copy:
                        copy.shutdown(socket.SHUT_RDWR)
        finally:
            self._lock.release()

    def close(self) -> None:
        """End the connections; the next question makes new ones."""
        with self._lock:
            for connection in self._connections.values():
                with contextlib.suppress(ldap.LDAPError):
                    connection.unbind_ext()
            self._connections.clear()

    def _connect(self, kind: str, question: _Question) -> SimpleLDAPObject:
        settings, seconds = self._settings, question.seconds()
        url = settings.ldap_url or ""
        connection = ldap.initialize(url)
        connection.set_option(ldap.OPT_PROTOCOL_VERSION, 3)
        connection.set_option(ldap.OPT_REFERRALS, 0)  # a directory must not send a password elsewhere
        connection.set_option(ldap.OPT_RESTART, 0)
        connection.set_option(ldap.OPT_NETWORK_TIMEOUT, seconds)
        connection.set_option(ldap.OPT_TIMEOUT, seconds)
        is_starting_tls = url.lower().startswith("ldap://") and settings.ldap_start_tls
        if is_starting_tls or url.lower().startswith("ldaps://"):
            if settings.ldap_ca_file is not None:
                connection.set_option(ldap.OPT_X_TLS_CACERTFILE, settings.ldap_ca_file)
            connection.set_option(ldap.OPT_X_TLS_REQUIRE_CERT, ldap.OPT_X_TLS_DEMAND)
            connection.set_option(ldap.OPT_X_TLS_NEWCTX, 0)
        with self._lock:
            self._connections[kind] = connection
        if is_starting_tls:
            connection.start_tls_s()
        return connection


def _result(connection: SimpleLDAPObject, number: int, question: _Question) -> list[Any]:
    """The entries of an operation, within what is left. Raises ldap.LDAPError."""
    _, entries, *_ = connection.result3(number, 1, question.seconds())
    return entries or []
