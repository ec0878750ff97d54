"""``fastauth.core`` is the compiled core unless the twin is asked for by name, and says which it is."""

import inspect
import os
import subprocess
import sys

from fastauth import _core, _core_py
from tests.cases import each

_TELL = "from fastauth import core; print(core.IMPLEMENTATION, core.gcra.__module__, core.MAX_JSON_DEPTH)"


@each(
    ("wish", "answer"),
    [
        ("1", "python fastauth._core_py 64"),
        (None, "cython fastauth._core 64"),
        ("0", "cython fastauth._core 64"),
    ],
)
def test_the_environment_chooses_the_implementation_and_it_names_itself(wish: str | None, answer: str) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "FASTAUTH_PURE_PYTHON"}
    if wish is not None:
        environment["FASTAUTH_PURE_PYTHON"] = wish
    told = subprocess.run(
        [sys.executable, "-c", _TELL], env=environment, capture_output=True, text=True, check=True, timeout=60
    )
    assert told.stdout.strip() == answer


def test_both_have_the_same_public_names_and_constants() -> None:
    imported = {"Any", "Callable", "Final", "Iterator", "OrderedDict", "deque"}

    def public(module: object) -> dict[str, object]:
        names = {name for name in vars(module) if name[0] != "_"} - imported
        return {name: value for name in names if not inspect.ismodule(value := getattr(module, name))}

    compiled, twin = public(_core), public(_core_py)
    assert compiled.keys() == twin.keys()
    differing = {name for name in compiled if not callable(compiled[name]) and compiled[name] != twin[name]}
    assert differing == {"IMPLEMENTATION"}
