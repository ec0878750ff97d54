"""How the baselines that are processes of their own end."""

import signal
import subprocess
from typing import Final

STOP_S: Final = 10.0


def stop(process: "subprocess.Popen[str]") -> None:
    """By SIGTERM, and if that is not enough by SIGKILL."""
    try:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        process.wait(STOP_S)
    except subprocess.TimeoutExpired:  # a client that holds its connection, or hashes that pile up
        process.kill()
        process.wait()
    finally:
        if process.stdout is not None:
            process.stdout.close()
