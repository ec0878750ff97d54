"""The promises of ``LeaseStore``."""

import asyncio

import pytest

from fastauth.domain.ports import LeaseStore
from tests.conformance.user_store import run


class LeaseStoreSuite:
    """Give ``leases`` an empty database."""

    @pytest.fixture
    def leases(self) -> LeaseStore:
        raise NotImplementedError

    def test_a_lease_is_one_holders_who_may_take_it_again(self, leases: LeaseStore) -> None:
        assert run(leases.take("sweep", "a", 30))
        assert not run(leases.take("sweep", "b", 30))
        assert run(leases.take("sweep", "a", 30))
        assert run(leases.take("rotate", "b", 30))

    def test_a_lease_that_has_run_out_or_was_given_back_is_anybodys(self, leases: LeaseStore) -> None:
        assert run(leases.take("sweep", "a", 0.05))
        run(asyncio.sleep(0.1))
        assert run(leases.take("sweep", "b", 30))
        run(leases.give_back("sweep", "a"))
        assert not run(leases.take("sweep", "a", 30))
        run(leases.give_back("sweep", "b"))
        assert run(leases.take("sweep", "a", 30))

    def test_of_many_who_want_it_at_once_one_has_it(self, leases: LeaseStore) -> None:
        async def all_at_once() -> list[bool]:
            return await asyncio.gather(*(leases.take("sweep", f"h{number}", 30) for number in range(20)))

        assert run(all_at_once()).count(True) == 1
