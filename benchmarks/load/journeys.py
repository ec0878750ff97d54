"""The journeys of a user of fastauth, each as a closed loop on a server that runs."""

from pathlib import Path
from typing import Any, Final, NamedTuple
from urllib.parse import urlencode

from benchmarks.load.peaks import Sessions, form, logins, posts, wrk
from benchmarks.load.servers import CONNECTIONS, ISSUER, PASSWORD, add_admin, add_client, write_tokens
from tests.integration.running import RunningServer, at_once

JOURNEYS: Final = (
    "login",
    "dear_login",
    "refresh",
    "client_credentials",
    "introspect",
    "verify",
    "verify_unseen",
    "jwks",
)
DEAR_CONNECTIONS: Final = 8  # of a hash of 40 ms: a third of a second, which the queue allows
DEAR_S: Final = 3.0  # a hundred hashes or so


class Installation(NamedTuple):
    """A fastauth that is measured: where its data are, its settings, and the Authorization header of its client."""

    name: str
    data_dir: Path
    env: dict[str, str]
    basic: str


def installed(name: str, folder: Path, env: dict[str, str]) -> Installation:
    """With a user and a client."""
    data_dir = folder / name.replace(" ", "-")
    data_dir.mkdir(mode=0o700)
    env = {**ISSUER, **env}
    add_admin(data_dir, env)
    return Installation(name, data_dir, env, add_client(data_dir, env))


class Journeys:
    """Those of ``JOURNEYS``, of one fastauth that runs. Each takes how long to go on, in seconds, and gives requests a
    second.
    """

    def __init__(self, server: RunningServer, installation: Installation) -> None:
        self.server = server
        self.installation = installation
        self._granted: dict[str, Any] = {}
        self._sessions: Sessions | None = None
        self._shown = 0  # of the many tokens: the next one has not been seen for longest

    def measure(self, journey: str, seconds: float) -> tuple[str, float]:
        """In: one of ``JOURNEYS``. Out: the name of its row, with that of the installation, and what it gives."""
        return f"{journey} {self.installation.name}", getattr(self, journey)(seconds)

    @property
    def _token(self) -> str:
        if not self._granted:
            self._granted = self.server.login("admin", PASSWORD).json
        return str(self._granted["token"])

    def login(self, seconds: float) -> float:
        return logins(self.server.port, seconds)

    def dear_login(self, seconds: float) -> float:
        """As many at a time as are not sent away, though each waits for all the others."""
        return logins(self.server.port, max(DEAR_S, seconds), DEAR_CONNECTIONS)

    def refresh(self, seconds: float) -> float:
        if self._sessions is None:
            login = lambda: str(self.server.login("admin", PASSWORD).json["refresh_token"])  # noqa: E731
            self._sessions = Sessions(self.server.port, at_once([login] * CONNECTIONS))
        return self._sessions.refresh(seconds)

    def client_credentials(self, seconds: float) -> float:
        fields = {"grant_type": "client_credentials"}
        return posts(self.server.port, seconds, form("/token", fields, self.installation.basic))

    def introspect(self, seconds: float) -> float:
        asked = (urlencode({"token": self._token}), self.installation.basic)
        return wrk(f"{self.server.url}/introspect", seconds, form=asked)

    def verify(self, seconds: float) -> float:
        return wrk(f"{self.server.url}/verify", seconds, self._token)

    def verify_unseen(self, seconds: float) -> float:
        rate = wrk(f"{self.server.url}/verify", seconds, tokens=self.many_tokens(), first=self._shown)
        # wrk goes on until its next look at the clock, a tenth of a second later at most.
        self._shown += round(1.2 * rate * seconds) + 2 * CONNECTIONS
        return rate

    def many_tokens(self) -> Path:
        """A file of them, which takes a while to write."""
        path = self.installation.data_dir / "tokens"
        return path if path.exists() else write_tokens(self.installation.data_dir, self.installation.env, path)

    def jwks(self, seconds: float) -> float:
        return wrk(f"{self.server.url}/.well-known/jwks.json", seconds)
