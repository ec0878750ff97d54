"""Every event that the source can write stands in docs/logging.md, and nothing else does."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from fastauth.server.counters import STATES

ROOT: Final = Path(__file__).parents[2]
# Which argument of these calls is an event.
PLACES: Final = {
    "info": 0,
    "warning": 0,
    "error": 0,
    "record": 0,
    "record_some": 0,
    "count": 0,
    "beginning": 0,
    "_warn_once": 0,
    "_tell": 1,
}
EVENT: Final = re.compile(r"[a-z]+(_[a-z]+)*")


def events_of(node: ast.expr) -> Iterator[str]:
    if isinstance(node, ast.Constant) and isinstance(node.value, str) and EVENT.fullmatch(node.value):
        yield node.value
    elif isinstance(node, ast.IfExp):
        yield from events_of(node.body)
        yield from events_of(node.orelse)
    elif isinstance(node, ast.JoinedStr) and isinstance(node.values[0], ast.Constant):
        prefix = str(node.values[0].value)
        assert prefix == "breaker_", f"another event is put together: {prefix}"
        yield from (prefix + state for state in STATES)


def written() -> set[str]:
    found: set[str] = set()
    for folder in ("server", "endpoints", "cli"):
        for path in (ROOT / "src" / "fastauth" / folder).rglob("*.py"):
            for call in ast.walk(ast.parse(path.read_text())):
                if isinstance(call, ast.Call):
                    name = getattr(call.func, "attr", None) or getattr(call.func, "id", None)
                    if name in PLACES or (name == "log" and folder == "server"):
                        place = PLACES.get(name, 0)
                        found.update(events_of(call.args[place]) if len(call.args) > place else ())
    return found


def documented(heading: str | None = None) -> set[str]:
    text = (ROOT / "docs" / "logging.md").read_text()
    if heading is not None:
        text = text.partition(f"## {heading}\n")[2].partition("\n## ")[0]
    rows = [line.split("|")[1] for line in text.splitlines() if line.startswith("| `")]
    return {name for row in rows for name in re.findall(r"`(\w+)`", row)}


def test_every_event_in_the_source_is_documented_and_no_other() -> None:
    assert written() == documented()


def test_the_page_has_a_table_of_each_stream() -> None:
    assert len(documented("The log")) > 20
    assert len(documented("The audit stream")) > 20


def test_the_contract_names_them_all() -> None:
    text = (ROOT / "docs" / "contract.md").read_text()
    (log,) = [line for line in text.splitlines() if line.startswith("| log events |")]
    (audit,) = [line for line in text.splitlines() if line.startswith("| audit events |")]
    assert set(re.findall(r"`(\w+)`", log)) == documented("The log")
    assert set(re.findall(r"`(\w+)`", audit)) == documented("The audit stream")
