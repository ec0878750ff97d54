"""A worker from the inside: how its threads share a core."""

import os
import threading

import pytest

from fastauth.server.worker import wait_for_turns
from tests.cases import each

POLICIES = {os.SCHED_OTHER: os.SCHED_BATCH, os.SCHED_BATCH: os.SCHED_BATCH, os.SCHED_IDLE: os.SCHED_IDLE}


@each("given", list(POLICIES))
def test_only_the_usual_policy_is_replaced_and_new_threads_inherit_it(given: int) -> None:
    found: list[int] = []

    def work() -> None:  # in a thread of its own: that of the tests stays as it is
        os.sched_setscheduler(0, given, os.sched_param(0))
        wait_for_turns()
        found.append(os.sched_getscheduler(0))
        inheriting = threading.Thread(target=lambda: found.append(os.sched_getscheduler(0)))
        inheriting.start()
        inheriting.join()

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [POLICIES[given]] * 2


@each("forbidden", ["sched_getscheduler", "sched_setscheduler"])
def test_a_sandbox_that_forbids_it_is_no_error(monkeypatch: pytest.MonkeyPatch, forbidden: str) -> None:
    def refuse(*arguments: object) -> None:
        raise PermissionError

    monkeypatch.setattr(os, forbidden, refuse)
    wait_for_turns()
