"""The promises of ``RevocationBus``."""

import asyncio

import pytest

from fastauth.domain.ports import RevocationBus
from tests.conformance.user_store import run

NOW_S = 1_800_000_000


class RevocationBusSuite:
    """Give ``bus`` an empty database, and ``other_bus`` the same through a connection of its own."""

    @pytest.fixture
    def bus(self) -> RevocationBus:
        raise NotImplementedError

    @pytest.fixture
    def other_bus(self) -> RevocationBus:
        raise NotImplementedError

    def test_news_come_in_the_order_in_which_they_were_told_a_page_at_a_time(self, bus: RevocationBus) -> None:
        assert run(bus.read_after(0, 10)) == []
        for number in range(5):
            run(bus.revoke_token(f"jti{number}", NOW_S + number))
        first = run(bus.read_after(0, 3))
        rest = run(bus.read_after(first[-1].seq, 3))
        assert [(news.kind, news.name, news.until_s) for news in (*first, *rest)] == [
            ("jti", f"jti{number}", NOW_S + number) for number in range(5)
        ]
        assert [news.seq for news in (*first, *rest)] == sorted({news.seq for news in (*first, *rest)})
        assert run(bus.read_after(rest[-1].seq, 3)) == []

    def test_news_that_nobody_needs_are_forgotten_in_small_batches_and_no_number_comes_twice(
        self, bus: RevocationBus
    ) -> None:
        for number in range(5):
            run(bus.revoke_token(f"old{number}", NOW_S))
        last = run(bus.read_after(0, 10))[-1].seq
        assert run(bus.purge(NOW_S, 3)) == 0
        assert [run(bus.purge(NOW_S + 1, 3)) for _ in range(3)] == [3, 2, 0]
        run(bus.revoke_token("new", NOW_S + 100))
        (news,) = run(bus.read_after(0, 10))
        assert news.seq > last
        assert run(bus.purge(NOW_S + 1, 3)) == 0

    def test_who_waits_is_woken_within_the_bound_by_what_another_tells(
        self, bus: RevocationBus, other_bus: RevocationBus
    ) -> None:
        async def told() -> None:
            for _ in range(2):  # the first look always finds something, and so may the second
                await asyncio.wait_for(bus.wait(), 1)
            waiting = asyncio.create_task(bus.wait())
            await asyncio.sleep(0.25)
            assert not waiting.done()
            await other_bus.revoke_token("a", NOW_S)
            await asyncio.wait_for(waiting, 1)
            assert [news.name for news in await bus.read_after(0, 10)] == ["a"]

        run(told())
