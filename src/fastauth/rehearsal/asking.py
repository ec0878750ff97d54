"""Single requests beside the load: is the server ready, what version is it, what does it tell of itself."""

import contextlib
import http.client
import socket
from typing import Final, NamedTuple

import msgspec
from prometheus_client.parser import text_string_to_metric_families

from fastauth.rehearsal.clients import member
from fastauth.rehearsal.errors import RehearsalRefused
from fastauth.rehearsal.plain import plain
from fastauth.rehearsal.target import Target

_TIMEOUT_S: Final = 5.0
_LONGEST: Final = 4 * 1024 * 1024
_BREAKER_OPEN: Final = 2  # ``fastauth_breaker_state``: 0 closed, 1 half open, 2 open


class Asked(NamedTuple):
    """An answer, read whole; ``retry_after_s`` None when it has none."""

    status: int
    body: bytes
    retry_after_s: int | None


class Connection(http.client.HTTPConnection):
    """To the address of a target, whatever its name resolves to by now."""

    def __init__(self, target: Target, timeout_s: float = _TIMEOUT_S) -> None:
        super().__init__(target.origin.host, target.origin.port, timeout=timeout_s)
        self._target = target

    def connect(self) -> None:
        raw = socket.create_connection((self._target.address, self.port), self.timeout)
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        tls = self._target.tls
        self.sock = raw if tls is None else tls.wrap_socket(raw, server_hostname=self._target.origin.host)

    def ask(self, method: str, path: str, body: bytes | None = None, kind: str | None = None) -> Asked:
        """Raises OSError or HTTPException, after which the next one gets a new connection."""
        headers = {"Host": self._target.origin.authority, **({} if kind is None else {"Content-Type": kind})}
        try:
            self.request(method, path, body, headers)
            answer = self.getresponse()
            data = answer.read(_LONGEST)
        except (OSError, http.client.HTTPException):
            self.close()
            raise
        after = answer.headers.get("Retry-After", "")
        return Asked(answer.status, data, int(after) if after.isdigit() and len(after) < 6 else None)


class Health(NamedTuple):
    """``troubles`` names what the server says it has to do without, or that it does not want work."""

    is_ready: bool
    troubles: frozenset[str]


class Metrics(NamedTuple):
    """Refusals so far by limit, and by lane; dependencies that are not asked at the moment."""

    refused_by_limit: dict[str, int]
    refused_by_lane: dict[str, int]
    open_breakers: frozenset[str]


def health(connection: Connection) -> Health:
    """``/readyz``. Raises OSError or HTTPException."""
    answer = connection.ask("GET", "/readyz")
    with contextlib.suppress(msgspec.MsgspecError):
        state = msgspec.json.decode(answer.body, type=dict[str, str | list[str]])
        degraded, status = state.get("degraded", []), state.get("status", "")
        if answer.status == 200 and status == "ready":
            names = degraded if isinstance(degraded, list) else []
            return Health(True, frozenset(plain(name) for name in names[:20]))
        return Health(False, frozenset({plain(str(status)) or f"HTTP {answer.status}"}))
    return Health(False, frozenset({f"HTTP {answer.status}"}))


def metrics(connection: Connection) -> Metrics | None:
    """``/metrics``; None where the server does not show them to us. Raises OSError or HTTPException."""
    answer = connection.ask("GET", "/metrics")
    if answer.status != 200:
        return None
    limits, lanes, breakers = dict[str, int](), dict[str, int](), set[str]()
    try:
        for family in text_string_to_metric_families(answer.body.decode()):
            for sample in family.samples:
                labels = sample.labels
                if sample.name == "fastauth_limit_decisions_total" and labels.get("decision") == "refused":
                    limits[plain(labels["limit"])] = int(sample.value)
                elif sample.name == "fastauth_lane_decisions_total" and "admitted" not in labels.get("decision", ""):
                    lanes[labels["lane"]] = lanes.get(labels["lane"], 0) + int(sample.value)
                elif sample.name == "fastauth_breaker_state" and sample.value >= _BREAKER_OPEN:
                    breakers.add(plain(labels["dependency"]))
    except (ValueError, KeyError, ArithmeticError):  # of a count that is infinite, say
        return None
    return Metrics(limits, lanes, frozenset(breakers))


def preflight(target: Target, timeout_s: float = _TIMEOUT_S) -> str | None:
    """Out: the server's version if it tells. Raises RehearsalRefused unless it is a fastauth that is ready."""
    with contextlib.closing(Connection(target, timeout_s)) as connection:
        try:
            state = health(connection)
            document = connection.ask("GET", "/openapi.json")
        except (OSError, http.client.HTTPException) as error:
            reason = getattr(error, "verify_message", None) or getattr(error, "strerror", None) or "no HTTP answer"
            raise RehearsalRefused(f"{target.origin} cannot be asked: {' '.join(str(reason).split())}") from None
    if not state.is_ready:
        why = ", ".join(sorted(state.troubles))
        raise RehearsalRefused(f"{target.origin} is not ready: /readyz says {why}; wait until it is, or see its log")
    with contextlib.suppress(msgspec.MsgspecError):
        info = msgspec.json.decode(document.body, type=dict[str, msgspec.Raw]).get("info")
        if info is not None and member(bytes(info), "title") == "fastauth":
            return plain(member(bytes(info), "version") or "") or None
    raise RehearsalRefused(f"{target.origin} is not a fastauth server: its /openapi.json is not fastauth's")
