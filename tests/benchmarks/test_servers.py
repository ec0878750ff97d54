"""What benchmarks start ends with them."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.machine import ROOT
from tests.integration.running import is_alive, wait_for

_PROGRAM = """
import sys, time
from pathlib import Path
from benchmarks.load.servers import end_on_sigterm, running_server
end_on_sigterm()
with running_server(Path(sys.argv[1])) as server:
    print(server.process.pid, *server.workers(), flush=True)
    time.sleep(20)
"""


@pytest.mark.integration
def test_a_benchmark_that_is_told_to_end_stops_its_servers(tmp_path: Path) -> None:
    command = [sys.executable, "-c", _PROGRAM, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as benchmark:
        assert benchmark.stdout is not None
        pids = [int(pid) for pid in benchmark.stdout.readline().split()]
        assert len(pids) == 2
        assert all(map(is_alive, pids))
        benchmark.terminate()
        assert benchmark.wait(20) == 128 + signal.SIGTERM
    wait_for(lambda: not any(map(is_alive, pids)))
