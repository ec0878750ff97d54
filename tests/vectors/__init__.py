"""Test vectors that other people worked out; see ``README.md`` for where they come from."""

import base64
import json
from pathlib import Path

HERE = Path(__file__).parent


def json_test_suite(kind: str) -> list[tuple[str, bytes]]:
    """(name, document) pairs of JSONTestSuite. In: ``n_`` must be refused, ``y_`` must pass, ``i_`` free to choose."""
    rows = json.loads((HERE / "jsontestsuite.json").read_text())
    return [(row["name"], _document(row)) for row in rows if row["name"].startswith(kind)]


def _document(row: dict[str, object]) -> bytes:
    times = row.get("times", 1)
    assert isinstance(times, int)
    return base64.b64decode(str(row["base64"])) * times + base64.b64decode(str(row.get("end", "")))
