"""Keys rotated under running servers: who follows how fast, what verifies meanwhile, and the commands for it."""

import asyncio
import contextlib
import http.client
import io
import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import jwt
import pytest
from jwt.algorithms import OKPAlgorithm

from fastauth.cli import main
from fastauth.server.bootstrap import open_signing_keys
from fastauth.server.settings import load_settings
from fastauth.server.signing_keys import ListedKey, SigningKeys
from fastauth.server.storage import open_existing_storage
from tests.integration.running import (
    CHEAP,
    FASTAUTH,
    FULL,
    RunningServer,
    at_once,
    cheap_hash,
    compact_jws,
    copy_without_users,
    environment,
    fastauth,
    import_lines,
    running_server,
    signing_key,
    wait_for,
)

PASSWORD = "a password of alice"
MAX_AGE_S, AHEAD_S = 1, 2
QUICK = {**CHEAP, "FASTAUTH_TOKENS__JWKS_MAX_AGE_S": f"{MAX_AGE_S}", "FASTAUTH_TOKENS__PUBLISH_AHEAD_S": f"{AHEAD_S}"}
ISSUER = "https://auth.example"
CONNECTIONS = 16  # so many that they lead to every worker


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    """What a server with one key and without users has left behind."""
    return copy_without_users(tmp_path / "data")


@pytest.fixture(scope="module")
def with_alice(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with the user alice, to be copied and never changed."""
    path = copy_without_users(tmp_path_factory.mktemp("alice"))
    import_lines(path, [{"username": "alice", "password_hash": cheap_hash(PASSWORD)}])
    return path


def copy_of(path: Path, into: Path) -> Path:
    into.mkdir(mode=0o700, exist_ok=True)
    for name in ("fastauth.db", "master.key"):
        shutil.copy2(path / name, into)
    return into


@pytest.fixture(scope="module")
def serving(tmp_path_factory: pytest.TempPathFactory, with_alice: Path) -> Iterator[RunningServer]:
    """Two workers whose keys every test here may rotate."""
    path = copy_of(with_alice, tmp_path_factory.mktemp("rotating"))
    with running_server(path, "--workers", "2", env=QUICK) as running:
        yield running


def with_keys(data_dir: Path, work: Callable[[SigningKeys], Any]) -> Any:
    """What a command would do with the keys, without the time that it takes to start."""
    named = {**QUICK, "FASTAUTH_DATA_DIR": str(data_dir)}

    async def run() -> Any:
        settings = load_settings(None, named, {})
        storage = await open_existing_storage(settings)
        try:
            return await work(open_signing_keys(settings, storage))
        finally:
            await storage.close()

    return asyncio.run(run())


def listed(data_dir: Path) -> list[ListedKey]:
    keys: list[ListedKey] = with_keys(data_dir, lambda keys: keys.listed())
    return keys


def states(data_dir: Path) -> dict[str, str]:
    return {key.kid: key.state for key in listed(data_dir)}


def kid_of(token: str) -> str:
    kid: str = jwt.get_unverified_header(token)["kid"]
    return kid


class Client:
    """One connection, which stays with the worker that took it."""

    def __init__(self, server: RunningServer) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)

    def ask(self, method: str, path: str, body: str | None = None, **headers: str) -> tuple[int, Any]:
        self._connection.request(method, path, body, headers)
        response = self._connection.getresponse()
        return response.status, json.loads(response.read())

    def login(self) -> str:
        body = json.dumps({"username": "alice", "password": PASSWORD})
        status, answer = self.ask("POST", "/auth", body, **{"Content-Type": "application/json"})
        assert status == 200, answer
        token: str = answer["token"]
        return token

    def verify(self, token: str) -> int:
        return self.ask("GET", "/verify", Authorization=f"Bearer {token}")[0]

    def kids(self) -> set[str]:
        return {key["kid"] for key in self.ask("GET", "/.well-known/jwks.json")[1]["keys"]}

    def close(self) -> None:
        self._connection.close()


@contextlib.contextmanager
def clients_of(server: RunningServer, count: int = CONNECTIONS) -> Iterator[list[Client]]:
    """Connections to all workers."""
    clients = [Client(server) for _ in range(count)]
    try:
        yield clients
    finally:
        for client in clients:
            client.close()


# ---------------------------------------------------------------- following


def test_every_worker_publishes_a_new_key_within_two_seconds(
    serving: RunningServer, record_property: Callable[[str, object], None]
) -> None:
    with clients_of(serving) as clients:
        said = done(run("keys", "rotate", data_dir=serving.data_dir, **QUICK))
        made = listed(serving.data_dir)[-1]
        assert said.startswith(f"fastauth: {made.kid} is published and will sign from ")
        wait_for(lambda: all(made.kid in client.kids() for client in clients), 10)
        took_s = time.time() - made.published_ms / 1000
        record_property("published_everywhere_s", round(took_s, 3))
        assert took_s < 2
        assert time.time() * 1000 > made.activates_ms or kid_of(clients[0].login()) != made.kid


def test_after_rotate_now_old_tokens_are_refused_and_new_logins_verify_on_every_worker_within_two_seconds(
    serving: RunningServer, record_property: Callable[[str, object], None]
) -> None:
    with clients_of(serving) as clients:
        old = [client.login() for client in clients]
        assert all(client.verify(token) == 200 for client, token in zip(reversed(clients), old, strict=True))
        said = done(run("keys", "rotate", "--now", data_dir=serving.data_dir, **QUICK))
        made = next(key for key in listed(serving.data_dir) if key.kid == said.split()[1])
        wait_for(lambda: all(client.verify(old[0]) == 401 for client in clients), 10)
        took_s = time.time() - made.published_ms / 1000
        record_property("old_refused_everywhere_s", round(took_s, 3))
        assert took_s < 2
        for client in clients:
            assert {client.verify(token) for token in old} == {401}
            assert client.kids() == {made.kid}
        for signer in clients:
            token = signer.login()
            assert kid_of(token) == made.kid
            assert {client.verify(token) for client in clients} == {200}


def test_rotations_under_load_fail_no_verification_and_no_key_signs_before_every_cache_has_it(
    serving: RunningServer, record_property: Callable[[str, object], None]
) -> None:
    rotations = 10 if FULL else 3
    ended = threading.Event()
    tokens: list[str] = []
    failures: list[str] = []
    verified = [0]
    first_asked: dict[str, float] = {}  # by kid: when the login was sent that answered with its first token
    published: dict[str, list[float | None]] = {}  # by kid: when each connection saw it first

    def until_the_end(step: Callable[[Client], None]) -> None:
        with clients_of(serving, 1) as (client,):
            while not ended.is_set():
                try:
                    step(client)
                except Exception as error:  # noqa: BLE001 - in a thread: the test looks at it at its end
                    failures.append(repr(error))
                    return
                time.sleep(0.004)

    def log_in(client: Client) -> None:
        asked = time.monotonic()
        token = client.login()
        kid = kid_of(token)
        first_asked[kid] = min(asked, first_asked.get(kid, asked))
        tokens.append(token)

    def verify(client: Client) -> None:
        if tokens:
            token = random.choice([tokens[-1], tokens[-1], tokens[0], random.choice(tokens)])
            if (status := client.verify(token)) != 200:
                failures.append(f"{status} for a token of {kid_of(token)}")
            verified[0] += 1

    def watch(clients: list[Client]) -> None:
        while not ended.is_set():
            for at, client in enumerate(clients):
                for kid in client.kids():
                    seen = published.setdefault(kid, [None] * len(clients))
                    seen[at] = seen[at] or time.monotonic()
            time.sleep(0.05)

    with clients_of(serving, CONNECTIONS // 2) as watching:
        threads = [threading.Thread(target=until_the_end, args=(step,)) for step in (log_in,) * 4 + (verify,) * 6]
        threads.append(threading.Thread(target=watch, args=(watching,)))
        for thread in threads:
            thread.start()
        try:
            new = []
            for _ in range(rotations):
                made = with_keys(serving.data_dir, lambda keys: keys.rotate())
                assert not made.existed
                new.append(made.kid)
                wait_for(partial(first_asked.__contains__, made.kid))
            time.sleep(0.2)
        finally:
            ended.set()
            for thread in threads:
                thread.join(30)
        assert failures == []
        assert len(new) == rotations
        ahead_s = [first_asked[kid] - max(seen or float("inf") for seen in published[kid]) for kid in new]
        record_property("published_ahead_s", [round(seconds, 2) for seconds in ahead_s])
        record_property("verified", verified[0])
        assert min(ahead_s) >= MAX_AGE_S
        assert verified[0] > 100
        assert {client.verify(tokens[0]) for client in watching} == {200}


def test_a_worker_that_is_killed_in_the_middle_of_a_rotation_comes_back_with_the_same_ring(
    serving: RunningServer,
) -> None:
    with clients_of(serving, 1) as (client,):
        token = client.login()
    before = serving.workers()
    made = with_keys(serving.data_dir, lambda keys: keys.rotate())
    os.kill(before[0], signal.SIGKILL)
    wait_for(lambda: len(serving.workers()) == 2 and before[0] not in serving.workers())

    def all_serve_it() -> bool:
        try:
            with clients_of(serving) as clients:
                return all(kid_of(client.login()) == made.kid and client.verify(token) == 200 for client in clients)
        except OSError:  # a connection that the killed one had taken
            return False

    wait_for(all_serve_it, 10)
    assert states(serving.data_dir)[made.kid] == "active"


# ---------------------------------------------------------------- algorithms, restarts


def _forget_keys(data_dir: Path) -> None:
    """As before the first start."""
    with contextlib.closing(sqlite3.connect(data_dir / "fastauth.db")) as database, database:
        database.execute("DELETE FROM signing_keys")


def verify_with_pyjwt(token: str, jwks: dict[str, Any]) -> dict[str, Any]:
    """The claims, by another program with nothing but the JWKS."""
    header = jwt.get_unverified_header(token)
    jwk = next(key for key in jwks["keys"] if key["kid"] == header["kid"])
    if header["alg"] != "Ed25519":
        return jwt.decode(token, jwt.PyJWK(jwk), algorithms=[header["alg"]], audience=ISSUER, issuer=ISSUER)
    pyjws = jwt.PyJWS()  # which knows Ed25519 by its older name only, and has to be told
    pyjws.register_algorithm("Ed25519", OKPAlgorithm())
    key: Any = OKPAlgorithm.from_jwk(jwk)
    claims: dict[str, Any] = json.loads(pyjws.decode(token, key, algorithms=["Ed25519"]))
    return claims


def _serve_with_one_algorithm_then_another(path: Path, first: str, second: str) -> None:
    _forget_keys(path)
    issuer = {**QUICK, "FASTAUTH_ISSUER": ISSUER}

    def jwks(server: RunningServer) -> dict[str, Any]:
        document: dict[str, Any] = server.request("GET", "/.well-known/jwks.json").json
        return document

    def check(server: RunningServer, token: str, alg: str) -> None:
        header = jwt.get_unverified_header(token)
        assert (header["alg"], header["typ"]) == (alg, "at+jwt")
        assert server.verify(token).status == 200
        assert verify_with_pyjwt(token, jwks(server))["preferred_username"] == "alice"

    with running_server(path, env={**issuer, "FASTAUTH_TOKENS__ALG": first}) as server:
        old = server.login("alice", PASSWORD).json["token"]
        check(server, old, first)
        assert [key["alg"] for key in jwks(server)["keys"]] == [first]
    plans = []
    for _ in range(2):  # the second is a restart in the middle of the rotation
        with running_server(path, env={**issuer, "FASTAUTH_TOKENS__ALG": second}) as server:
            keys = listed(path)
            plans.append([(key.kid, key.alg, key.activates_ms) for key in keys])
            assert [key["alg"] for key in jwks(server)["keys"]] == [first, second]
            if time.time() * 1000 < keys[1].activates_ms - 500:
                check(server, server.login("alice", PASSWORD).json["token"], first)
            if len(plans) == 2:
                wait_for(partial(_signs_with, server, keys[1].kid))
                check(server, server.login("alice", PASSWORD).json["token"], second)
                check(server, old, first)
    assert plans[0] == plans[1]
    assert [alg for _, alg, _ in plans[0]] == [first, second]


def _signs_with(server: RunningServer, kid: str) -> bool:
    return kid_of(server.login("alice", PASSWORD).json["token"]) == kid


def test_servers_of_each_algorithm_and_a_change_of_it_at_a_restart(tmp_path: Path, with_alice: Path) -> None:
    at_once(
        [
            partial(_serve_with_one_algorithm_then_another, copy_of(with_alice, tmp_path / "a"), "ES256", "Ed25519"),
            partial(_serve_with_one_algorithm_then_another, copy_of(with_alice, tmp_path / "b"), "Ed25519", "RS256"),
        ]
    )


# ---------------------------------------------------------------- the commands


Outcome = subprocess.CompletedProcess[str]


def run(*arguments: str, data_dir: Path, stdin: str | None = None, **env: str) -> Outcome:
    """A command to its end, as a process."""
    return without_secrets(fastauth(*arguments, data_dir=data_dir, stdin=stdin, env={**CHEAP, **env}))


def run_here(*arguments: str, data_dir: Path, stdin: str = "") -> Outcome:
    """A command to its end, in this process: most of a command's life is starting Python."""
    umask = os.umask(0o077)
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        for name in os.environ:
            if name.startswith("FASTAUTH_"):
                patch.delenv(name)
        patch.setenv("FASTAUTH_ISSUER", ISSUER)
        patch.setattr(sys, "argv", ["fastauth", *arguments, "--data-dir", str(data_dir)])
        patch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin.encode())))
        with pytest.raises(SystemExit) as ended:
            main()
    os.umask(umask)
    assert isinstance(ended.value.code, int)
    return without_secrets(subprocess.CompletedProcess(arguments, ended.value.code, out.getvalue(), err.getvalue()))


def without_secrets(outcome: Outcome) -> Outcome:
    """No command ever shows a private key."""
    for text in (outcome.stdout, outcome.stderr):
        for private in ('"d"', '"p"', '"q"', "PRIVATE", "wrapped", "Traceback"):
            assert private not in text
    return outcome


def done(outcome: Outcome) -> str:
    """Exit 0 and nothing on standard error; out: standard output."""
    assert (outcome.returncode, outcome.stderr) == (0, "")
    return outcome.stdout


def assert_failed(outcome: Outcome, code: int, *words: str) -> None:
    """This exit code, nothing on standard output, and one line on standard error with these words in it."""
    assert (outcome.returncode, outcome.stdout) == (code, "")
    (line,) = outcome.stderr.splitlines()
    assert line.startswith("fastauth: ")
    for word in words:
        assert word in line


def test_keys_are_listed_rotated_and_retired_from_the_command_line(data_dir: Path) -> None:
    (first,) = [json.loads(line) for line in done(run_here("keys", "list", "--json", data_dir=data_dir)).splitlines()]
    assert (first["state"], first["alg"], first["signs_until"], first["removed"]) == ("active", "RS256", None, None)
    assert set(first) == {"kid", "alg", "state", "published", "signs_from", "signs_until", "removed"}
    assert first["signs_from"].endswith("Z")

    made = done(run("keys", "rotate", data_dir=data_dir))
    (_, second) = listed(data_dir)
    signs_from = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(second.activates_ms // 1000))
    assert made.startswith(f"fastauth: {second.kid} is published and will sign from {signs_from}")
    assert 355 < second.activates_ms / 1000 - time.time() <= 362
    again, refused, shown = (
        run_here("keys", *arguments, data_dir=data_dir)
        for arguments in (("rotate",), ("retire", first["kid"], "--now"), ("list",))
    )
    assert done(again).startswith(f"fastauth: {second.kid} is published already and will sign from {signs_from}")
    assert_failed(refused, 1, "this key signs", "fastauth keys rotate")
    lines = [line.split("\t") for line in done(shown).splitlines()]
    assert [line[:3] for line in lines] == [[first["kid"], "RS256", "active"], [second.kid, "RS256", "next"]]
    assert lines[0][3] == f"signs since {first['signs_from']} until {signs_from}"
    assert lines[1][3] == f"signs from {signs_from}"

    assert done(run_here("keys", "retire", second.kid, data_dir=data_dir)) == f"fastauth: {second.kid} is removed\n"
    repeated = run_here("keys", "retire", second.kid, data_dir=data_dir)
    assert done(repeated) == f"fastauth: {second.kid} is removed already\n"
    now = run("keys", "rotate", "--now", data_dir=data_dir)
    third = next(kid for kid in states(data_dir) if kid not in (first["kid"], second.kid))
    assert done(now).startswith(f"fastauth: {third} signs from now on; all other keys are removed")
    wait_for(lambda: states(data_dir) == {first["kid"]: "removed", second.kid: "removed", third: "active"})


def test_key_commands_that_cannot_be_done_fail_in_one_line(data_dir: Path, tmp_path: Path) -> None:
    hyphen = "-now" + "A" * 39  # of 64 kids one begins like an option
    empty = copy_without_users(tmp_path / "empty")
    _forget_keys(empty)
    (empty / "master.key").unlink()
    locked = copy_without_users(tmp_path / "locked")
    (locked / "master.key").unlink()
    cases: list[tuple[Path, tuple[str, ...], int, str]] = [
        (data_dir, ("keys", "retire", "unknown"), 1, "no key of this kid"),
        (data_dir, ("keys", "retire", hyphen), 1, "no key of this kid"),
        (data_dir, ("keys", "retire", "--now", hyphen), 1, "no key of this kid"),
        (data_dir, ("keys", "retire"), 2, "--help"),
        (data_dir, ("keys", "rotate", "extra"), 2, "--help"),
        (data_dir, ("keys", "remove"), 2, "--help"),
        (tmp_path / "none", ("keys", "list"), 1, "there is no database"),
        (tmp_path / "none", ("keys", "rotate"), 1, "there is no database"),
        (empty, ("keys", "rotate"), 1, "no signing key yet"),
        (empty, ("keys", "rotate", "--now"), 1, "no signing key yet"),
        (locked, ("keys", "rotate"), 1, "master.key is missing"),
        (locked, ("keys", "rotate", "--now"), 1, "master.key is missing"),
    ]
    for path, arguments, code, words in cases:
        assert_failed(run_here(*arguments, data_dir=path), code, words)
    assert not (tmp_path / "none").exists()
    assert not (empty / "master.key").exists()
    assert list(states(data_dir).values()) == list(states(locked).values()) == ["active"]


def test_commands_that_are_killed_leave_a_ring_that_is_whole(data_dir: Path) -> None:
    """Each ``rotate --now`` adds a key and removes all others, or does nothing."""

    def kill(after_s: float) -> None:
        process = subprocess.Popen(
            [FASTAUTH, "keys", "rotate", "--now", "--data-dir", str(data_dir)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=environment(**CHEAP, FASTAUTH_TOKENS__ALG="Ed25519"),
        )
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(after_s)
        process.kill()
        process.wait()

    count = 60 if FULL else 12
    at_once([partial(kill, 0.3 + 0.7 * number / count) for number in range(count)])
    with contextlib.closing(sqlite3.connect(data_dir / "fastauth.db")) as database:
        assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        ((version,),) = database.execute("SELECT version FROM key_ring").fetchall()
        rows = database.execute("SELECT kid, removes_ms FROM signing_keys ORDER BY activates_ms").fetchall()
    assert version == 1 + len(rows)  # the first key made it 2
    assert [removes_ms is None for _, removes_ms in rows] == [False] * (len(rows) - 1) + [True]
    wait_for(lambda: list(states(data_dir).values()) == ["removed"] * (len(rows) - 1) + ["active"])
    ring = with_keys(data_dir, lambda keys: keys.load())
    assert ring.active.kid == rows[-1][0]


def token_of(data_dir: Path, **changes: Any) -> str:
    """A token by the key of this data directory."""
    key = signing_key(data_dir)
    now_s = int(time.time())
    claims = {"iss": ISSUER, "aud": ISSUER, "sub": "s1", "exp": now_s + 600, "iat": now_s, "scope": "user", **changes}
    claims = {"jti": "j1", "client_id": "fastauth", **claims}
    header = json.dumps({"alg": "RS256", "typ": "at+jwt", "kid": key.kid}).encode()
    return compact_jws(key, header, json.dumps(claims).encode())


def test_a_token_is_inspected_and_verified_from_standard_input(data_dir: Path, tmp_path: Path) -> None:
    token = token_of(data_dir)
    odd = token_of(data_dir, **{"\x1b[2J\n\u009b\u202e": "\x1b[31m\u009b\u202e😀\x7f"})
    nowhere = tmp_path / "none"
    shown = run_here("token", "inspect", data_dir=nowhere, stdin=f"  {token}\n")
    as_json = run_here("token", "inspect", "--json", data_dir=nowhere, stdin=token)
    good = run_here("token", "verify", data_dir=data_dir, stdin=f"{token}\n")
    claims = run_here("token", "verify", "--json", data_dir=data_dir, stdin=token)
    strange, strange_json = at_once(
        [
            partial(run, "token", "inspect", *more, data_dir=nowhere, stdin=odd, PYTHONIOENCODING="ascii")
            for more in ((), ("--json",))
        ]
    )
    assert (shown.returncode, shown.stderr.count("\n")) == (0, 1)
    assert "nothing was verified" in shown.stderr
    assert 'iss: "https://auth.example"' in shown.stdout.splitlines()
    assert " s)" in next(line for line in shown.stdout.splitlines() if line.startswith("exp: "))
    inspected = json.loads(done(as_json))
    assert (inspected["claims"]["sub"], inspected["verified"]) == ("s1", False)
    assert inspected["header"]["typ"] == "at+jwt"
    assert done(good).startswith("fastauth: valid; subject s1, scope user (in ")
    assert json.loads(done(claims))["jti"] == "j1"
    for outcome in (strange, strange_json):  # whoever wrote the token does not write to the terminal
        assert outcome.returncode == 0
        assert outcome.stdout.replace("\n", "").isascii()
        assert outcome.stdout.replace("\n", "").isprintable()
    assert len(strange.stdout.splitlines()) == 10
    assert json.loads(strange_json.stdout)["claims"]["\x1b[2J\n\u009b\u202e"] == "\x1b[31m\u009b\u202e😀\x7f"


def test_a_token_that_is_none_or_refused_fails_in_one_line_that_does_not_repeat_it(
    data_dir: Path, tmp_path: Path
) -> None:
    expired = token_of(data_dir, exp=int(time.time()) - 10)
    header, payload, signature = token_of(data_dir).split(".")
    forged = f"{header}.{payload}.{signature[:-4]}AAAA"
    garbage = "xyzzy." * 350_000
    empty = copy_without_users(tmp_path / "empty")
    _forget_keys(empty)
    cases = [
        ("verify", data_dir, expired, "expired"),
        ("verify", data_dir, forged, "signature"),
        ("verify", data_dir, token_of(data_dir, aud="https://other.example"), "audience"),
        ("verify", data_dir, garbage, "too_large"),
        ("verify", data_dir, "", "no token came on standard input"),
        ("verify", data_dir, "xyzzy", "malformed"),
        ("verify", tmp_path / "none", expired, "there is no database"),
        ("verify", empty, expired, "no signing key yet"),
        ("inspect", data_dir, garbage, "not a token"),
        ("inspect", data_dir, " \n", "no token came on standard input"),
        ("inspect", data_dir, "a.b.c", "not a token"),
        ("inspect", data_dir, f"{header}.{payload}", "three parts"),
    ]
    outcomes = [run_here("token", name, data_dir=path, stdin=stdin) for name, path, stdin, _ in cases]
    piped = at_once(
        [
            partial(run, "token", name, data_dir=data_dir, stdin=garbage, FASTAUTH_ISSUER=ISSUER)
            for name in ("verify", "inspect")
        ]
    )
    cases += [("", data_dir, garbage, "too_large"), ("", data_dir, garbage, "not a token")]
    for (_, _, stdin, words), outcome in zip(cases, [*outcomes, *piped], strict=True):
        assert_failed(outcome, 1, words)
        assert "xyzzy" not in outcome.stderr
        assert not stdin.strip() or stdin[:30] not in outcome.stderr
