"""``make pictures``: the pictures in ``docs/images`` of ``fastauth top`` and of the dashboard, taken of a real server.

The dashboard's panels are drawn from what a real Prometheus has scraped and answers to their own queries.
"""

import asyncio
import io
import json
import subprocess
import tempfile
import threading
import time
from contextlib import closing
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import matplotlib as mpl
from matplotlib import pyplot as plt
from rich.console import Console

from benchmarks.machine import ROOT
from fastauth.backends.passwords import PROFILES, hash_password
from fastauth.cli.top import view
from fastauth.rehearsal.arrivals import Segment
from fastauth.rehearsal.clients import FixedRequests, RefreshChains, TicketLogins
from fastauth.rehearsal.open_loop import Stream, drive
from fastauth.server.overview import Overview
from fastauth.server.overview import RunningServer as Seen
from fastauth.server.settings import Settings
from tests.integration.running import RunningServer, copy_without_users, import_lines, running_server, verify_bytes
from tests.integration.test_dashboard import DASHBOARD, VARIABLES, Prometheus

IMAGES: Final = ROOT / "docs" / "images"
USERS: Final = [[f"user{number}", "pw"] for number in range(300)]
SECONDS: Final = 40.0
SHOWN: Final = (
    "Requests by route",
    "Refused and failed",
    "Time to answer, p99",
    "Logins by lane",
    "Logins that wait",
    "How long a newcomer would wait",
    "Password checks",
    "Event loop: how late, p99",
    "Private memory",
)


def storm(server: RunningServer) -> list[Stream]:
    """Verifications and refreshes all the time; more logins than can be checked, for a third of it."""
    granted = [server.login(*user).json for user in USERS[:20]]
    third = SECONDS / 3
    logins = [Segment(third, 5, 5), Segment(third, 100, 100), Segment(third, 5, 5)]
    return [
        Stream("verify", FixedRequests([verify_bytes(one["token"]) for one in granted]), [Segment(SECONDS, 300, 300)]),
        Stream("refresh", RefreshChains([one["refresh_token"] for one in granted]), [Segment(SECONDS, 20, 20)]),
        Stream("login", TicketLogins(USERS), logins, 1, most_connections=900, patience_s=20),
    ]


def look(server: RunningServer, looks: list[Overview]) -> None:
    """One look of two seconds."""
    seen = Seen(Settings(data_dir=str(server.data_dir)))
    before = seen.read()
    time.sleep(2)
    looks.append(seen.overview(before, seen.read()))


def picture_of_top(overview: Overview, path: Path) -> None:
    """As a terminal shows it."""
    console = Console(record=True, width=140, file=io.StringIO(), force_terminal=True, color_system="truecolor")
    console.print(view(overview))
    svg = console.export_svg(title="fastauth top")
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder) / "top.svg"
        page.write_text(svg)
        box = svg.partition('viewBox="0 0 ')[2].partition('"')[0].split()
        width, height = (round(float(one)) for one in box)
        subprocess.run(
            [
                "chromium",
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--hide-scrollbars",
                f"--window-size={width},{height}",
                f"--screenshot={path}",
                page.as_uri(),
            ],
            check=True,
            capture_output=True,
            timeout=60,
        )


def picture_of_dashboard(prometheus: Prometheus, began: float, ended: float, path: Path) -> None:
    """The panels, each from the answer to its own queries."""
    mpl.use("Agg")
    panels = {panel["title"]: panel for panel in DASHBOARD["panels"]}
    figure, axes = plt.subplots(3, 3, figsize=(15, 9), facecolor="white")
    for title, axis in zip(SHOWN, axes.flat, strict=True):
        for target in panels[title]["targets"]:
            for series in _range(prometheus, target["expr"], began, ended):
                points = [(float(at) - began, float(value)) for at, value in series["values"] if value != "NaN"]
                label = target["legendFormat"]
                for name, value in series["metric"].items():
                    label = label.replace("{{" + name + "}}", value)
                if any(value for _, value in points):
                    axis.plot(*zip(*points, strict=True), label=label, linewidth=1.5)
        axis.set_title(title, fontsize=11, loc="left")
        axis.set_ylim(bottom=0)
        axis.grid(alpha=0.3)
        axis.legend(fontsize=7, loc="upper right")
    for axis in axes[-1]:
        axis.set_xlabel("seconds")
    figure.tight_layout()
    figure.savefig(path, dpi=80)


def _range(prometheus: Prometheus, query: str, began: float, ended: float) -> list[dict[str, Any]]:
    for variable, value in VARIABLES.items():
        query = query.replace(variable, value)
    answer = prometheus.get(f"/api/v1/query_range?query={quote(query)}&start={began}&end={ended}&step=0.5")
    assert answer["status"] == "success", answer
    result: list[dict[str, Any]] = answer["data"]["result"]
    return result


def main() -> None:
    """Take both."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        hashed = hash_password("pw", PROFILES["owasp"])
        data_dir = copy_without_users(folder / "data")
        import_lines(data_dir, [{"username": user, "password_hash": hashed} for user, _ in USERS])
        with (
            running_server(data_dir, "--workers", "2", env={"FASTAUTH_LIMITS__REFRESH_PER_IP": "off"}) as server,
            closing(Prometheus(folder, server.port)) as prometheus,
        ):
            streams, began = storm(server), time.time()
            looks: list[Overview] = []
            camera = threading.Timer(SECONDS / 2, look, (server, looks))
            camera.start()
            result = asyncio.run(drive(server.port, streams))
            camera.join()
            time.sleep(2)
            picture_of_dashboard(prometheus, began, began + SECONDS + 5, IMAGES / "dashboard.png")
            picture_of_top(looks[0], IMAGES / "top.png")
    print(json.dumps({name: samples.samples.counts() for name, samples in result.streams.items()}))


if __name__ == "__main__":
    main()
