"""Each scenario for a moment; ``make chaos`` runs them for longer."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.chaos.scenarios import SCENARIOS, Report
from tests.integration.running import FULL

pytestmark = pytest.mark.integration

SECONDS = 30.0 if FULL else 4.0


@pytest.mark.parametrize("scenario", SCENARIOS, ids=[scenario.__name__ for scenario in SCENARIOS])
def test_every_request_is_answered_but_those_that_may_be_lost(
    scenario: Callable[[Path, float], Report], tmp_path: Path
) -> None:
    report = scenario(tmp_path, SECONDS)
    for name, account in report.requests.items():
        assert account.sent > 0
        assert account.failed == 0, (name, account)
        if name not in report.may_refuse:
            assert account.refused == 0, (name, account)
        if not report.may_lose:
            assert account.lost == 0, (name, account)
    assert report.lost <= report.may_lose
    assert sum(account.answered for account in report.requests.values()) > 0
