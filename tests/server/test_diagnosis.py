"""What the doctor looks at by itself; its dependencies are in ``tests/integration/test_fleet.py``."""

import os
from pathlib import Path

from fastauth.server.diagnosis import has_autogroups, is_here


def test_autogroups_are_on_when_the_kernel_says_so(tmp_path: Path) -> None:
    setting = tmp_path / "sched_autogroup_enabled"
    assert not has_autogroups(setting)  # a kernel without them
    setting.write_text("0\n")
    assert not has_autogroups(setting)
    setting.write_text("1\n")
    assert has_autogroups(setting)


def test_a_backend_is_here_when_its_number_is_that_of_a_postgres(tmp_path: Path) -> None:
    (tmp_path / "4711").mkdir()
    (tmp_path / "4711" / "comm").write_text("postgres\n")
    assert is_here(4711, tmp_path)
    (tmp_path / "4711" / "comm").write_text(
        "nginx\n"
    )  # it is another machine's, and here the number is somebody else's
    assert not is_here(4711, tmp_path)
    assert not is_here(4712, tmp_path)
    assert not is_here(os.getpid())
