"""When a worker that died is replaced; whole servers are started in ``tests/integration``."""

from fastauth.server.lifecycle import Backoff


def test_a_worker_that_keeps_dying_young_is_replaced_ever_later_up_to_five_seconds() -> None:
    backoff = Backoff()
    delays = [backoff.delay_s(lived_s=0.5) for _ in range(9)]
    assert delays == [0.0, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0]


def test_a_worker_that_has_lived_long_is_replaced_at_once() -> None:
    backoff = Backoff()
    for _ in range(5):
        backoff.delay_s(lived_s=0.5)
    assert backoff.delay_s(lived_s=3600.0) == 0.0
    assert backoff.delay_s(lived_s=0.5) == 0.1
