"""The promises of ``ClientStore``."""

from typing import Any

import msgspec
import pytest

from fastauth.domain.clients import Client
from fastauth.domain.errors import Conflict, NotFound
from fastauth.domain.ports import ClientStore, RevocationBus
from tests.conformance.user_store import run

NOW_S = 1_800_000_000


def client(name: str, **changes: Any) -> Client:
    """A client whose id is made from the name."""
    fresh = Client(client_id=f"id-{name}", name=name, secret_hash=b"h" * 32, created_at_s=1_000, updated_at_s=1_000)
    return msgspec.structs.replace(fresh, **changes)


class ClientStoreSuite:
    """Give ``clients`` and ``bus`` one empty database."""

    @pytest.fixture
    def clients(self) -> ClientStore:
        raise NotImplementedError

    @pytest.fixture
    def bus(self) -> RevocationBus:
        raise NotImplementedError

    def told(self, bus: RevocationBus) -> list[tuple[str, str]]:
        return [(news.kind, news.name) for news in run(bus.read_after(0, 100))]

    def test_an_added_client_is_found_whole_by_id_and_by_name(self, clients: ClientStore) -> None:
        for one in (
            client("a"),
            client("b", grants=("client_credentials",), scope="x y", introspect="any", disabled=True),
            client("c", old_secret_hash=b"\0" * 32, old_secret_until_s=1 << 40, created_at_s=1 << 40),
        ):
            run(clients.add(one))
            assert run(clients.find(one.client_id)) == one
            assert run(clients.find_by_name(one.name)) == one
        assert run(clients.find("a")) is None
        assert run(clients.find_by_name("id-a")) is None

    def test_a_name_and_an_id_are_taken_once(self, clients: ClientStore) -> None:
        run(clients.add(client("a")))
        for again in (client("a", client_id="other"), client("z", client_id="id-a")):
            with pytest.raises(Conflict):
                run(clients.add(again))

    def test_clients_are_listed_by_name_a_page_at_a_time(self, clients: ClientStore) -> None:
        for name in ("c", "a", "d", "b"):
            run(clients.add(client(name)))
        assert [one.name for one in run(clients.list_clients("", 3))] == ["a", "b", "c"]
        assert [one.name for one in run(clients.list_clients("c", 3))] == ["d"]

    def test_a_new_secret_leaves_the_old_one_good_for_as_long_as_it_was_to_be_kept(
        self, clients: ClientStore, bus: RevocationBus
    ) -> None:
        run(clients.add(client("a")))
        run(clients.set_secret("id-a", b"n" * 32, NOW_S + 60, NOW_S))
        found = run(clients.find("id-a"))
        assert found is not None
        assert (found.secret_hash, found.old_secret_hash) == (b"n" * 32, b"h" * 32)
        assert (found.old_secret_until_s, found.updated_at_s) == (NOW_S + 60, NOW_S)
        run(clients.set_secret("id-a", b"m" * 32, NOW_S, NOW_S))
        found = run(clients.find("id-a"))
        assert found is not None
        assert (found.secret_hash, found.old_secret_hash) == (b"m" * 32, None)
        assert self.told(bus) == [("client", "id-a")] * 2

    def test_while_a_client_is_disabled_all_its_tokens_are_refused_and_afterwards_those_from_before(
        self, clients: ClientStore, bus: RevocationBus
    ) -> None:
        run(clients.add(client("a")))
        run(clients.set_disabled("id-a", True, NOW_S))
        run(clients.set_disabled("id-a", False, NOW_S + 100))
        disabled, enabled = run(bus.read_after(0, 10))
        assert disabled.kind == enabled.kind == "client_id"
        assert disabled.issued_until_s > NOW_S + 10**9
        assert enabled.issued_until_s == NOW_S + 99
        assert disabled.until_s >= NOW_S + 86_400
        assert enabled.until_s >= NOW_S + 100 + 86_400

    def test_a_deleted_client_is_gone_and_its_tokens_are_refused(
        self, clients: ClientStore, bus: RevocationBus
    ) -> None:
        run(clients.add(client("a")))
        run(clients.delete("id-a", NOW_S))
        assert run(clients.find("id-a")) is None
        (news,) = run(bus.read_after(0, 10))
        assert (news.kind, news.name) == ("client_id", "id-a")
        assert news.issued_until_s > NOW_S + 10**9

    def test_what_is_done_to_a_client_that_does_not_exist_is_refused_and_told_to_nobody(
        self, clients: ClientStore, bus: RevocationBus
    ) -> None:
        for work in (
            clients.set_disabled("id-x", True, NOW_S),
            clients.set_secret("id-x", b"n" * 32, 0, NOW_S),
            clients.delete("id-x", NOW_S),
        ):
            with pytest.raises(NotFound):
                run(work)
        assert self.told(bus) == []
