"""Where nodes of one core can be started, behind HAProxy on one PostgreSQL and one Redis, and what comes to them."""

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

from benchmarks.load.costs import PASSWORD
from benchmarks.load.overload import steady
from benchmarks.load.resources import Rig
from benchmarks.load.servers import SEEN, on_core
from benchmarks.simulation.fleet import seed_of
from tests.integration.running import RunningServer, at_once, running_server, verify_bytes
from tests.proxy_servers import running_proxy

USERS: Final = 3_000
PATIENCE_S: Final = 3.0
# Leased buckets that refuse nobody.
ROOMY: Final = ("2000/s burst 2000", "5000/s burst 5000")
BASIS: Final = {
    **SEEN,
    "FASTAUTH_LIMITS__LOGIN_PER_IP": "100000/s burst 100000",
    "FASTAUTH_LIMITS__LOGIN_PER_USER": "1000/s burst 1000",
    "FASTAUTH_LIMITS__REFRESH_PER_IP": "100000/s burst 100000",
}


class Fleet(NamedTuple):
    """Where nodes can be started: their database and Redis, and what both need to know."""

    rig: Rig
    folder: Path
    env: dict[str, str]

    @contextlib.contextmanager
    def node(self, core: str, limits: tuple[str, str], number: int = 0) -> Iterator[RunningServer]:
        """A node on one core. In: the leased limits of all logins together, and of validations."""
        env = {
            **self.env,
            "FASTAUTH_LIMITS__LOGIN_GLOBAL": f"{limits[0]} leased",
            "FASTAUTH_LIMITS__VERIFY_PER_IP": f"{limits[1]} leased",
        }
        with contextlib.ExitStack() as stack:
            with on_core(core):
                server = stack.enter_context(running_server(self.folder / f"node{number}", env=env))
            yield server

    @contextlib.contextmanager
    def balancer(self, nodes: list[RunningServer]) -> Iterator[tuple[int, int]]:
        """HAProxy's port and process id; each request goes to the next node in turn."""
        edits = {"balance leastconn": "balance roundrobin"}
        if len(nodes) == 1:
            edits['    server node-2 "${NODE_2}"\n'] = ""
        folder = Path(tempfile.mkdtemp(dir=self.folder))
        ports = [nodes[0].port, nodes[-1].port]
        with running_proxy("haproxy", ports, ports[0], folder, edits) as proxy:
            yield proxy.port, proxy.process.pid


def users() -> list[list[str]]:
    """Who logs in."""
    return [[f"user{number}", PASSWORD] for number in range(USERS)]


def one_stream(lane: str, behaviour: dict[str, Any], seconds: float, per_s: float, seed: int) -> dict[str, Any]:
    """A stream of the generator, with the arrivals that the simulation has for a seed."""
    return {
        "name": lane,
        "behaviour": behaviour,
        "segments": steady(seconds, per_s),
        "poisson_seed": seed_of(lane, seed),
        "connections": 32,
        "most_connections": 1_500,
        "patience_s": PATIENCE_S,
    }


def logins(seconds: float, per_s: float, *, returns: bool, seed: int = 1) -> dict[str, Any]:
    """Everybody once, in turn. In: whether who is sent away comes back."""
    behaviour = {"kind": "logins", "users": users(), "returns_with_ticket": returns}
    return one_stream("login", behaviour, seconds, per_s, seed)


def verifications(token: str, seconds: float, per_s: float, seed: int = 1) -> dict[str, Any]:
    """The same token over and over."""
    return one_stream("verify", {"kind": "requests", "requests": [verify_bytes(token).decode()]}, seconds, per_s, seed)


def refreshes(tokens: list[str], seconds: float, per_s: float, seed: int = 1) -> dict[str, Any]:
    """Sessions that go on; each waits for its last refresh."""
    return one_stream("refresh", {"kind": "refreshes", "tokens": tokens}, seconds, per_s, seed)


def granted(server: RunningServer, count: int) -> list[dict[str, str]]:
    """So many sessions."""
    return at_once([lambda number=number: server.login(f"user{number}", PASSWORD).json for number in range(count)])  # type: ignore[misc]
