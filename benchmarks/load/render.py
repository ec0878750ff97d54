"""Renders ``benchmarks/README.md`` and its plots from the newest records; nobody types a number."""

import json
from pathlib import Path
from typing import Any

from benchmarks.load.overload_tables import admission_table, line_text, overload_table, storm_table
from benchmarks.load.plots import plot_overload, plot_side_by_side, plot_storm
from benchmarks.load.targets import (
    against_table,
    in_process_table,
    journeys_table,
    overload_targets_table,
    profile_table,
    targets_table,
)
from benchmarks.machine import RESULTS, ROOT

README = ROOT / "benchmarks" / "README.md"
TEMPLATE = ROOT / "benchmarks" / "templates" / "README.md"
MICRO = ROOT / "benchmarks" / "micro" / "record.json"
INSTRUCTIONS = ROOT / "benchmarks" / "instructions" / "record.json"


def newest(pattern: str) -> Path:
    """The newest record, by its dated name. Raises FileNotFoundError."""
    paths = sorted(RESULTS.glob(pattern))
    if not paths:
        raise FileNotFoundError(f"no record like {pattern} yet, so no page is rendered")
    return paths[-1]


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


def instructions_table(record: dict[str, Any]) -> str:
    """The counts of ``make bench``."""
    rows = "\n".join(f"| {name} | {count:,.0f} |" for name, count in record["instructions"].items())
    return f"| in process | instructions a call |\n| --- | --- |\n{rows}"


def two_nodes_table(record: dict[str, Any]) -> str:
    """Two nodes on one bucket."""

    def row(run: dict[str, Any]) -> str:
        by_node = " + ".join(f"{count:,}" for count in run["admitted_by_node"])
        return (
            f"| {run['mode']} | {run['per_second']:,} | {by_node} = {run['admitted']:,} "
            f"| {run['most']:,} | {run['most_in_any_window']:,} | {run['p99_ms']} ms |"
        )

    rows = [row(run) for run in record["two_nodes"]]
    return (
        "| mode | requests/s | admitted | burst + rate x t | bound over any window | p99 |\n"
        "| --- | --- | --- | --- | --- | --- |\n" + "\n".join(rows)
    )


def faults_table(record: dict[str, Any]) -> str:
    """What Redis's faults cost."""

    def row(name: str, run: dict[str, Any]) -> str:
        back = "never away" if run["shared_again_after_s"] is None else f"{run['shared_again_after_s']} s"
        return (
            f"| {name} | {run['requests']:,} | {run['answers_5xx']} | {run['without_answer']} | {run['refused']} "
            f"| {run['p50_before_ms']} / {run['p99_before_ms']} / {run['longest_before_ms']} ms "
            f"| {run['longest_at_the_fault_ms']} ms | {run['p99_after_ms']} ms | {back} "
            f"| {run['lost_lines']}, {run['back_lines']} |"
        )

    return (
        "| Redis | requests | 5xx | no answer | 429 | before: p50 / p99 / longest | longest at the fault | p99 after "
        "| shared again after | lines `redis_lost`, `redis_back` of 2 workers |\n"
        f"|{' --- |' * 10}\n" + "\n".join(row(name, run) for name, run in record["faults"].items())
    )


def fleet_faults_table(record: dict[str, Any]) -> str:
    """What each fault did to two nodes: the slowest answer of each kind, and how long they took to be back."""

    def row(fault: dict[str, Any]) -> str:
        slowest = fault["slowest_ms"]
        times = " | ".join(f"{slowest[name]} ms" for name in ("verify", "auth", "refresh"))
        answer = "503" if fault["is_fatal"] else "200"
        return f"| {fault['name']} | {times} | {answer} | {fault['back_s']} s |"

    return (
        "| fault | slowest `/verify` | slowest `/auth` | slowest refresh | login and refresh meanwhile | back after |\n"
        f"|{' --- |' * 6}\n" + "\n".join(row(fault) for fault in record["faults"])
    )


def revocation_line(record: dict[str, Any]) -> str:
    """The distribution of the delay."""
    delay = record["revocation_ms"]
    return (
        f"A logout on one node is refused by the other after {delay['p50']} ms (median of {delay['tries']}), "
        f"p99 {delay['p99']} ms, at most {delay['max']} ms. "
        f"Races of 50 refreshes of one token over both nodes, one new head each: {record['rounds_of_races']}."
    )


def identity_faults_table(record: dict[str, Any]) -> str:
    """What each fault of an identity source did to logins of local accounts, and when it was noticed and forgotten."""

    def row(fault: dict[str, Any]) -> str:
        added = fault["median_ms"] - fault["healthy_ms"]
        return (
            f"| {fault['source']} | {fault['fault']} | {fault['others']} | {added:+.1f} ms | {fault['slowest_ms']} ms "
            f"| {fault['opened_s']} s | {fault['recovered_s']} s |"
        )

    return (
        "| source | fault | logins of others that succeeded | added to their median | their slowest "
        "| circuit open after | back after |\n"
        + f"|{' --- |' * 7}\n"
        + "\n".join(row(fault) for fault in record["faults"])
    )


def identity_line(record: dict[str, Any]) -> str:
    """Two hundred logins that hang, and what the guards cost."""
    hanging, overhead = record["hanging"], record["overhead_us"]
    return (
        f"While 200 logins hang at the service, local logins keep {hanging['ratio']} of their rate (median of "
        f"{len(hanging['rounds'])} rounds: {', '.join(map(str, hanging['rounds']))}). A login of a local account costs "
        f"{overhead['chain']} us more for the chain, and a call through a closed breaker {overhead['breaker']} us."
    )


def publish(kind: str, record: dict[str, Any], *, is_whole: bool) -> None:
    """Keep a record and render the page, unless the run was a short one or the revision is not one that exists."""
    if not is_whole or record["revision"].endswith("-dirty"):
        print("not recorded: that takes a full run on a clean revision")
        return
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{record['date'][:10]}-{kind}.json"
    path.write_text(json.dumps(record, indent=None if kind == "traces" else 2) + "\n")
    print(f"recorded in {path.relative_to(ROOT)}")
    render_if_possible()


def render_if_possible() -> None:
    """As ``render``; the page waits for records that there are not yet, and says for which."""
    try:
        render()
    except FileNotFoundError as missing:
        print(missing)


def render() -> str:
    """Write the page and its plots; out: the table of targets."""
    path = newest("*-side-by-side.json")
    sides, micro = json.loads(path.read_text()), json.loads(MICRO.read_text())
    instructions = json.loads(INSTRUCTIONS.read_text())
    limits_path = newest("*-limits.json")
    limits = json.loads(limits_path.read_text())
    soak = json.loads(newest("*-soak.json").read_text())
    fleet_path = newest("*-fleet.json")
    fleet = json.loads(fleet_path.read_text())
    identity_path = newest("*-identity.json")
    identity = json.loads(identity_path.read_text())
    overload, admission = (json.loads(newest(f"*-{kind}.json").read_text()) for kind in ("overload", "admission"))
    table = targets_table(sides)
    page = TEMPLATE.read_text().format(
        targets=table,
        targets_in_process=in_process_table(micro),
        targets_overload=overload_targets_table(overload, soak),
        journeys=journeys_table(sides),
        profile=profile_table(json.loads(newest("*-profile.json").read_text())),
        profile_source=newest("*-profile.json").name,
        against=against_table(json.loads(newest("*-against.json").read_text())),
        against_source=newest("*-against.json").name,
        micro=micro_table(micro),
        instructions=instructions_table(instructions),
        instructions_revision=instructions["revision"],
        instructions_versions=", ".join(f"{name} {text}" for name, text in instructions["versions"].items()),
        sides_source=path.name,
        sides_seconds=f"{sides['seconds']:g}",
        sides_rounds=len(sides["rounds"]["hello"]),
        sides_packages=", ".join(
            f"{name} {text}" for name, text in {**sides["packages"], **sides.get("versions", {})}.items()
        ),
        fleet_faults=fleet_faults_table(fleet),
        fleet_revocation=revocation_line(fleet),
        fleet_source=fleet_path.name,
        fleet_revision=fleet["revision"],
        identity_faults=identity_faults_table(identity),
        identity_line=identity_line(identity),
        identity_source=identity_path.name,
        identity_revision=identity["revision"],
        overload=overload_table(overload),
        storm=storm_table(overload),
        line=line_text(overload),
        overload_source=newest("*-overload.json").name,
        overload_revision=overload["revision"],
        admission=admission_table(admission),
        admission_source=newest("*-admission.json").name,
        traces_source=newest("*-traces.json").name,
        two_nodes=two_nodes_table(limits),
        faults=faults_table(limits),
        limits_source=limits_path.name,
        limits_revision=limits["revision"],
        machine=f"{sides['cores']} x {sides['machine']}, Linux {sides['kernel']}, Python {sides['python']}",
        revision=sides["revision"],
    )
    README.write_text(page)
    plot_side_by_side(sides)
    plot_overload(overload)
    plot_storm(overload)
    return table


if __name__ == "__main__":
    print(render())
