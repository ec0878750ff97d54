"""Renders ``benchmarks/README.md`` from the newest load record and the micro record; nobody types a number."""

import json
from pathlib import Path
from typing import Any

from benchmarks.machine import RESULTS, ROOT

README = ROOT / "benchmarks" / "README.md"
TEMPLATE = ROOT / "benchmarks" / "templates" / "README.md"
MICRO = ROOT / "benchmarks" / "micro" / "record.json"


def newest(pattern: str) -> Path:
    """The newest record, by its dated name. Raises FileNotFoundError."""
    paths = sorted(RESULTS.glob(pattern))
    if not paths:
        raise FileNotFoundError(f"no record like {pattern}; run: make bench-load")
    return paths[-1]


def load_table(record: dict[str, Any]) -> str:
    """The figures with the ratio that each is read by."""
    figures = record["figures"]
    hello, ceiling = figures["hello_per_s"], figures["login_owasp_ceiling_per_s"]
    rows = [
        ("start to ready, second start", f"{figures['start_to_ready_s']:.2f} s", ""),
        ("RssAnon of a worker at rest", f"{figures['worker_rss_anon_mib']:.0f} MiB", ""),
        ("`POST /auth`, cheapest hash, RS256", f"{figures['login_cheapest_per_s']:.0f}/s", ""),
        (
            "`POST /auth`, OWASP hash",
            f"{figures['login_owasp_per_s']:.1f}/s",
            f"{figures['login_owasp_per_s'] / ceiling:.2f} x (cores / hash time = {ceiling:.1f}/s)",
        ),
        ("bare ASGI hello on granian", f"{hello:.0f}/s", ""),
        (
            "`GET /verify`, seen token",
            f"{figures['verify_per_s']:.0f}/s",
            f"{figures['verify_per_s'] / hello:.2f} x hello",
        ),
        (
            "`GET /verify`, every token unseen",
            f"{figures['verify_unseen_per_s']:.0f}/s",
            f"{figures['verify_unseen_per_s'] / hello:.2f} x hello",
        ),
        (
            "plain Python baseline, PyJWT",
            f"{figures['python_validate_per_s']:.0f}/s",
            f"fastauth: {figures['verify_per_s'] / figures['python_validate_per_s']:.1f} x",
        ),
    ]
    return "| one core | measured | ratio |\n| --- | --- | --- |\n" + "\n".join(
        f"| {' | '.join(row)} |" for row in rows
    )


def micro_table(record: dict[str, Any]) -> str:
    """The ratios of ``make bench``, then its figures."""
    ratios = "\n".join(f"| {row} | {ratio} |" for row, ratio in record["ratios"].items())
    figures = "\n".join(
        f"| {figure['name']} | {figure['value']:,.3g} {figure['unit']} | {figure['target']} |"
        for figure in record.get("figures", ())
    )
    return (
        f"| in process | times faster |\n| --- | --- |\n{ratios}\n\n"
        f"| in process | measured | target |\n| --- | --- | --- |\n{figures}"
    )


def render() -> str:
    """Write the page; out: the load table."""
    path = newest("*-load.json")
    load, micro = json.loads(path.read_text()), json.loads(MICRO.read_text())
    table = load_table(load)
    page = TEMPLATE.read_text().format(
        load=table,
        micro=micro_table(micro),
        load_source=path.name,
        machine=f"{load['cores']} x {load['machine']}, Linux {load['kernel']}, Python {load['python']}",
        revision=load["revision"],
    )
    README.write_text(page)
    return table


if __name__ == "__main__":
    print(render())
