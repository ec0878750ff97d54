"""Renders ``benchmarks/README.md`` from the newest load record and those of ``make bench``; nobody types a number."""

import json
from pathlib import Path
from typing import Any

from benchmarks.load.overload_tables import admission_table, line_text, overload_table, storm_table
from benchmarks.machine import RESULTS, ROOT

README = ROOT / "benchmarks" / "README.md"
TEMPLATE = ROOT / "benchmarks" / "templates" / "README.md"
MICRO = ROOT / "benchmarks" / "micro" / "record.json"
INSTRUCTIONS = ROOT / "benchmarks" / "instructions" / "record.json"


LIMITED_ROWS = (
    ("`POST /auth`, all limits on", "login_limited_per_s", "login_cheapest_per_s"),
    ("`POST /auth`, all limits on, through Redis", "login_limited_redis_per_s", "login_cheapest_per_s"),
    ("`GET /verify`, limited by address", "verify_limited_per_s", "verify_per_s"),
    ("`GET /verify`, limited by address, leased from Redis", "verify_leased_per_s", "verify_per_s"),
)


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
        *(
            (name, f"{figures[row]:.0f}/s", f"{figures[row] / figures[off]:.2f} x without limits")
            for name, row, off in LIMITED_ROWS
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


def instructions_table(record: dict[str, Any]) -> str:
    """The counts of ``make bench``."""
    rows = "\n".join(f"| {name} | {count:,.0f} |" for name, count in record["instructions"].items())
    return f"| in process | instructions a call |\n| --- | --- |\n{rows}"


def sessions_table(record: dict[str, Any]) -> str:
    """The token endpoints, each beside what bounds it."""
    figures = record["figures"]
    hello = figures["hello"]
    body = figures["form"]
    rows = [
        ("bare ASGI hello on granian", f"{hello:.0f}/s", ""),
        ("bare ASGI on granian that reads a form", f"{body:.0f}/s", f"{body / hello:.2f} x hello"),
    ]
    for alg in ("RS256", "ES256"):
        sign = figures[f"sign_{alg}"]
        rows.append((f"raw {alg} signatures, in process", f"{sign:.0f}/s", ""))
        for name, row in (
            ("`POST /auth`, cheapest hash, session written", "login"),
            ("`POST /token`, client_credentials", "client"),
            ("`POST /token`, refresh_token", "refresh"),
            ("`POST /token`, client_credentials, limits on", "client_limited"),
            ("`POST /token`, refresh_token, limits on", "refresh_limited"),
        ):
            value = figures[f"{row}_{alg}"]
            rows.append((f"{name}, {alg}", f"{value:.0f}/s", f"{value / sign:.2f} x raw signatures"))
        value = figures[f"introspect_{alg}"]
        ratio = f"{value / hello:.2f} x hello, {value / body:.2f} x the form"
        rows.append((f"`POST /introspect`, {alg} access token", f"{value:.0f}/s", ratio))
    return "| one core | measured | ratio |\n| --- | --- | --- |\n" + "\n".join(
        f"| {' | '.join(row)} |" for row in rows
    )


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


def fleet_table(record: dict[str, Any]) -> str:
    """PostgreSQL and Redis beside SQLite."""
    figures = record["figures"]

    def row(name: str, key: str) -> str:
        sqlite, postgres = figures[f"{key}_sqlite"], figures[f"{key}_postgres"]
        return f"| {name} | {sqlite:.0f}/s | {postgres:.0f}/s | {postgres / sqlite:.2f} |"

    rows = [
        row("`POST /auth`, cheapest hash, RS256, session written", "login"),
        row("`POST /token`, refresh_token", "refresh"),
        row("`POST /token`, client_credentials", "client"),
    ]
    return "| one core a node, limits off | SQLite | PostgreSQL | ratio |\n| --- | --- | --- | --- |\n" + "\n".join(
        rows
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
    try:
        render()
    except FileNotFoundError as missing:  # the page waits for the other records
        print(missing)


def render() -> str:
    """Write the page; out: the load table."""
    path = newest("*-load.json")
    load, micro = json.loads(path.read_text()), json.loads(MICRO.read_text())
    instructions = json.loads(INSTRUCTIONS.read_text())
    limits_path = newest("*-limits.json")
    limits = json.loads(limits_path.read_text())
    sessions_path = newest("*-sessions.json")
    sessions = json.loads(sessions_path.read_text())
    fleet_path = newest("*-fleet.json")
    fleet = json.loads(fleet_path.read_text())
    identity_path = newest("*-identity.json")
    identity = json.loads(identity_path.read_text())
    overload, admission = (json.loads(newest(f"*-{kind}.json").read_text()) for kind in ("overload", "admission"))
    table = load_table(load)
    page = TEMPLATE.read_text().format(
        load=table,
        micro=micro_table(micro),
        instructions=instructions_table(instructions),
        instructions_revision=instructions["revision"],
        instructions_versions=", ".join(f"{name} {text}" for name, text in instructions["versions"].items()),
        sessions=sessions_table(sessions),
        sessions_source=sessions_path.name,
        sessions_revision=sessions["revision"],
        load_source=path.name,
        fleet=fleet_table(fleet),
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
        machine=f"{load['cores']} x {load['machine']}, Linux {load['kernel']}, Python {load['python']}",
        revision=load["revision"],
    )
    README.write_text(page)
    return table


if __name__ == "__main__":
    print(render())
