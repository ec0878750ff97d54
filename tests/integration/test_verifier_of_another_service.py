"""Another service verifies tokens by ``Verifier(url)``: through a rotation, and while the server is away."""

from pathlib import Path

import pytest

from fastauth import TokenRefused, Verifier
from fastauth.jose.keyset import KeySet
from fastauth.verifier.jwks_client import MIN_INTERVAL_S, JwksClient
from tests.integration.running import CHEAP, RunningServer, fastauth, free_port, running_server, wait_for
from tests.verifier.test_jwks_client import Clock, let_fetches_end

PASSWORD = "correct horse battery staple"


def test_another_service_follows_a_rotation_and_goes_on_while_the_server_is_away(tmp_path: Path) -> None:
    data_dir, port = tmp_path / "data", free_port()
    added = fastauth("user", "add", "alice", "--password-stdin", data_dir=data_dir, stdin=PASSWORD, env=CHEAP)
    assert added.returncode == 0, added.stderr

    def token_from(server: RunningServer) -> str:
        answer = server.login("alice", PASSWORD)
        assert answer.status == 200, answer.body
        token: str = answer.json["token"]
        return token

    with running_server(data_dir, env=CHEAP, port=port) as server:
        verifier, clock = Verifier(f"{server.url}/.well-known/jwks.json", server.url, server.url), Clock()
        fetched: list[KeySet] = []

        def use(keys: KeySet) -> None:
            fetched.append(keys)
            verifier.use_keys(keys)

        verifier._source = JwksClient(f"{server.url}/.well-known/jwks.json", use, monotonic=clock)
        old = token_from(server)
        assert verifier.verify(old)["preferred_username"] == "alice"
        assert (len(fetched), verifier.keys.skipped) == (1, 0)

        kids = set(verifier.keys.by_kid)
        rotated = fastauth("keys", "rotate", "--now", data_dir=data_dir)
        assert rotated.returncode == 0, rotated.stderr
        wait_for(lambda: server.verify(old).status == 401)  # the server itself follows within 2 s
        new = token_from(server)
        with pytest.raises(TokenRefused) as refusal:  # the last fetch is too recent for another
            verifier.verify(new)
        assert refusal.value.code == "key"
        clock.now += MIN_INTERVAL_S
        assert verifier.verify(new)["preferred_username"] == "alice"
        assert len(fetched) == 2
        assert not kids & set(verifier.keys.by_kid)
        with pytest.raises(TokenRefused) as refusal:  # it was accepted before, with a key that is gone now
            verifier.verify(old)
        assert refusal.value.code == "key"
        unseen = token_from(server)

    clock.now += 1_000_000  # long after any max-age
    verifier.verify(new)
    let_fetches_end()
    assert verifier._source.last_error is not None
    for token in (new, unseen):
        assert verifier.verify(token)["preferred_username"] == "alice"
    assert len(fetched) == 2

    with running_server(data_dir, env=CHEAP, port=port) as server:
        clock.now += MIN_INTERVAL_S
        assert verifier.verify(token_from(server))["preferred_username"] == "alice"
        let_fetches_end()
        assert verifier._source.last_error is None
        assert verifier.verify(new)["preferred_username"] == "alice"
