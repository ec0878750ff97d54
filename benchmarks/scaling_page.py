"""Renders ``docs/scaling.md`` from the newest costs and two-node records; nobody types a number.

``python -m benchmarks.scaling_page [--costs FILE] [--two-nodes FILE] [--to FILE]``
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from benchmarks.load.render import newest
from benchmarks.machine import ROOT
from benchmarks.scaling import Plan, efficiency, growth_line, hash_s, need, needs_table

PAGE: Final = ROOT / "docs" / "scaling.md"
TEMPLATE: Final = ROOT / "benchmarks" / "templates" / "scaling.md"
TARGET: Final = 0.15
_LAUNCH: Final = Plan(logins_per_s=1_000_000 / 600, over_s=600.0)
_VALIDATIONS: Final = Plan(verifications_per_s=100_000.0, unseen_share=0.01)


def plans_table(record: Mapping[str, Any]) -> str:
    """What both launches need."""
    columns = {
        f"{_LAUNCH.logins_per_s:,.0f} logins/s": need(record, _LAUNCH),
        f"{_VALIDATIONS.verifications_per_s:,.0f} validations/s": need(record, _VALIDATIONS),
    }
    return needs_table(columns)


def plan_text() -> str:
    """What they are."""
    return (
        f"{_LAUNCH.logins_per_s * _LAUNCH.over_s:,.0f} logins in {_LAUNCH.over_s / 60:g} minutes with the OWASP hash, "
        f"and {_VALIDATIONS.verifications_per_s:,.0f} validations a second of which {_VALIDATIONS.unseen_share:.0%} "
        f"bring a token that is new to the worker; nodes of {_LAUNCH.cores_per_node} cores, "
        f"{_LAUNCH.utilisation:.0%} busy, {_LAUNCH.spare_nodes} to spare:"
    )


def what_if_table(record: Mapping[str, Any]) -> str:
    """The first launch with other hashes and another signature."""
    change = msgspec.structs.replace
    plans = {
        "the OWASP hash, RS256 (above)": _LAUNCH,
        "ES256": change(_LAUNCH, alg="ES256"),
        "`rfc9106-low-memory` (64 MiB, 3 passes)": change(_LAUNCH, hash_profile="rfc9106-low-memory"),
        "RFC 9106's first choice (2 GiB), which fastauth has no profile for": change(
            _LAUNCH, hash_profile="rfc9106-2gib"
        ),
        "the cheapest hash, which protects nobody: all but the hash": change(
            _LAUNCH, hash_profile="cheapest-for-tests"
        ),
        "nodes 80 % busy": change(_LAUNCH, utilisation=0.8),
        "16 cores a node": change(_LAUNCH, cores_per_node=16),
    }
    rows = []
    for name, plan in plans.items():
        needed = need(record, plan)
        each_ms = hash_s(record, plan.hash_profile, plan.alg) * 1e3
        rows.append(
            f"| {name} | {each_ms:,.1f} ms | {needed.hash_cores:,.0f} | {needed.loop_cores:.0f} "
            f"| {needed.nodes:,} x {plan.cores_per_node} | {needed.hash_memory_mib:,.0f} MiB |"
        )
    head = (
        "| | hash and signature | cores busy with hashes | with loops | nodes x cores | memory of a node for hashes |"
    )
    return f"{head}\n|{' --- |' * 6}\n" + "\n".join(rows)


def costs_table(record: Mapping[str, Any]) -> str:
    """Each journey, at both loads."""
    rows = []
    for name, journey in record["journeys"].items():
        for load in ("moderate", "saturated"):
            point = journey[load]
            rows.append(
                f"| {name if load == 'moderate' else ''} | {point['per_s']:,.0f}/s | {point['loop_s'] * 1e3:.3f} ms "
                f"| {point['hash_s'] * 1e3:.2f} ms | {point['redis_commands']:.3f} | {point['redis_s'] * 1e6:.1f} us "
                f"| {point['redis_in_bytes']:.0f} + {point['redis_out_bytes']:.0f} "
                f"| {journey['transactions']:.2f} / {point['write_transactions']:.2f} / {journey['rows_written']:.2f} "
                f"| {point['postgres_s'] * 1e6:.0f} us | {point['wal_bytes']:.0f} "
                f"| {journey['http_in_bytes']} + {journey['http_out_bytes']} |"
            )
    head = (
        "| a request | rate | event loop | hash thread | Redis commands | Redis CPU | Redis bytes in + out "
        "| transactions / commits / rows | PostgreSQL CPU | WAL bytes | HTTP bytes in + out |"
    )
    return f"{head}\n|{' --- |' * 11}\n" + "\n".join(rows)


def workers_table(record: Mapping[str, Any]) -> str:
    """One worker and two."""
    rows = []
    for name, runs in record["workers"].items():
        for count, text in (("one", "1, pinned"), ("two", "2, both cores")):
            point = runs[count]
            node_s = point["loop_s"] + point["hash_s"]
            rows.append(
                f"| {name} | {text} | {point['per_s']:,.1f}/s | {point['node_cores']:.2f} "
                f"| {point['generator_s'] * point['per_s']:.2f} | {1 / node_s:,.1f} "
                f"| {efficiency(record, name) if count == 'two' else 1:.2f} |"
            )
    head = "| | workers | answered | cores they had | cores of the generator | requests a core-second | efficiency |"
    return f"{head}\n|{' --- |' * 7}\n" + "\n".join(rows)


def _pair(point: Mapping[str, Any], lane: str, name: str, digits: int = 0) -> str:
    """Measured / simulated, and how far apart."""
    have, got = point["measured"][lane][name], point["simulated"][lane][name]
    if have is None or got is None or (not have and not got):
        return "-"
    apart = point["difference"][lane].get(name)
    tail = "" if apart is None else f" ({apart:+.0%})"
    return f"{have:,.{digits}f} / {got:,.{digits}f}{tail}"


def two_nodes_table(record: Mapping[str, Any]) -> str:
    """Every point and lane."""
    rows = []
    for point in record["points"]:
        for number, lane in enumerate(point["measured"]):
            rates = {"login": "logins_per_s", "refresh": "refreshes_per_s", "verify": "verifications_per_s"}
            rows.append(
                f"| {point['name'] if not number else ''} | {lane}, {point['plan'][rates[lane]]:.0f}/s "
                f"| {_pair(point, lane, 'goodput_per_s', 1)} | {_pair(point, lane, 'admitted')} "
                f"| {_pair(point, lane, 'sent_away')} | {_pair(point, lane, 'limited')} | {_pair(point, lane, 'lost')} "
                f"| {_pair(point, lane, 'p50_ms', 1)} | {_pair(point, lane, 'ended_s', 1)} |"
            )
    head = (
        "| load | offered | answered 200 in time, a second | 200 in all | 503 | 429 | no answer "
        "| p50 of the 200, ms | all through after, s |"
    )
    return f"{head}\n|{' --- |' * 9}\n" + "\n".join(rows)


def telling(point: Mapping[str, Any]) -> dict[tuple[str, str], float]:
    """The differences of a point that say something, by lane and figure: of a lane that refused or sent away, those and
    what was served; of one that bore its load only how long a login took, because what it served is what came.
    """
    told: dict[tuple[str, str], float] = {}
    for lane, differences in point["difference"].items():
        away, limited = differences["sent_away"], differences["limited"]
        names = ["sent_away", "goodput_per_s", "ended_s"] if away is not None else []
        names += ["limited", "admitted"] if limited is not None else []
        names += ["p50_ms"] if lane == "login" and not names else []
        told |= {(lane, name): differences[name] for name in names if differences[name] is not None}
    return told


_WORDS: Final = {
    "goodput_per_s": "answered in time",
    "admitted": "200",
    "sent_away": "503",
    "limited": "429",
    "ended_s": "all through",
    "p50_ms": "p50",
}


def _span(values: Sequence[float], form: str = ",.0f") -> str:
    return f"{min(values):{form}} to {max(values):{form}}"


def verdict(record: Mapping[str, Any]) -> str:
    """How many of the figures that say something are within the target, and which are not; and what is left out."""
    apart: list[float] = []
    beyond: list[str] = []
    waits: list[float] = []
    for point in record["points"]:
        told = telling(point)
        for (lane, name), value in told.items():
            apart.append(value)
            if abs(value) > TARGET:
                rounds = {
                    side: [one[lane][name] for one in point["rounds"][side]] for side in ("measured", "simulated")
                }
                beyond.append(
                    f"{_WORDS[name]} of {lane}, {point['name']} ({value:+.0%}: rounds of "
                    f"{_span(rounds['measured'])} beside {_span(rounds['simulated'])}; by single calibrations the "
                    f"simulation's mean is {_span(point['by_single_calibrations'][lane][name])})"
                )
        if ("login", "sent_away") in told and (wait := point["difference"]["login"]["p50_ms"]) is not None:
            waits.append(wait)
    good = len(apart) - len(beyond)
    text = (
        "Where a lane bears its load, what it serves is what came, which is no feat; of the others, and of the time "
        f"that a login takes where nobody is sent away, there are {len(apart)} figures. {good} of them are within "
        f"{TARGET:.0%}"
    )
    text = f"{text}; not within: {', '.join(beyond)}." if beyond else f"{text}."
    if waits:
        text += (
            f" Not counted, and not to be read from the simulation: how long a login takes where some are sent away "
            f"({_span(waits, '+.0%')}), which is the length of a queue between two bounds, where small differences of "
            "pace add up; and times of short requests beside hashes."
        )
    return text


def busy_table(record: Mapping[str, Any]) -> str:
    """The parts of the two cores, measured / simulated."""
    rows = [
        f"| {point['name']} | "
        + " | ".join(
            f"{point['busy']['measured'][kind]:.2f} / {point['busy']['simulated'][kind]:.2f}"
            for kind in ("loops", "hashes", "others")
        )
        + " |"
        for point in record["points"]
    ]
    return "| cores busy | event loops | hashes | all else |\n| --- | --- | --- | --- |\n" + "\n".join(rows)


def arrivals_text(record: Mapping[str, Any]) -> str:
    """What came."""
    point = record["points"][0]
    autogroups, rounds = "on" if record["autogroups"] else "off", len(point["rounds"]["measured"])
    return (
        f"Arrivals are Poisson, for {point['plan']['seconds']:g} s, the same moments in both; who is sent away comes "
        f"back with the ticket when told, and leaves after {record['patience_s']:g} s without an answer. All logins "
        "and all validations each share a leased bucket, which refuses somebody in the last plan only. Each plan ran "
        f"{rounds} times with other arrivals, simulated by the calibrations around it; figures are means. The kernel's "
        f"autogroups ([fleet.md](fleet.md#postgresql-on-the-same-machine)) were {autogroups}."
    )


def render(costs_path: Path, two_nodes_path: Path, page: Path) -> None:
    """Write the page."""
    costs, two_nodes = json.loads(costs_path.read_text()), json.loads(two_nodes_path.read_text())
    owasp = costs["journeys"]["login, OWASP hash"]["saturated"]
    calm = costs["journeys"]["login, cheapest hash"]["saturated"]
    text = TEMPLATE.read_text().format(
        plan_text=plan_text(),
        plans=plans_table(costs),
        growth_login=growth_line(need(costs, _LAUNCH), _LAUNCH),
        growth_verify=growth_line(need(costs, _VALIDATIONS), _VALIDATIONS),
        what_if=what_if_table(costs),
        costs=costs_table(costs),
        hash_part=f"{owasp['hash_s'] / (owasp['hash_s'] + owasp['loop_s']):.0%}",
        workers=workers_table(costs),
        session_bytes=f"{costs['state']['session_bytes']:.0f}",
        bucket_bytes=f"{costs['state']['bucket_bytes']:.0f}",
        sync_ms=f"{costs['sync_s'] * 1e3:.2f}",
        redis_calm_us=f"{calm['redis_s'] / calm['redis_inner'] * 1e6:.1f}",
        redis_full_us=f"{costs['redis_inner_s'] * 1e6:.1f}",
        costs_source=costs_path.name,
        machine=f"{costs['cores']} x {costs['machine']}, Linux {costs['kernel']}, Python {costs['python']}",
        costs_revision=costs["revision"],
        arrivals_text=arrivals_text(two_nodes),
        two_nodes=two_nodes_table(two_nodes),
        busy=busy_table(two_nodes),
        verdict=verdict(two_nodes),
        two_nodes_source=two_nodes_path.name,
        two_nodes_revision=two_nodes["revision"],
    )
    page.write_text(text)


def render_if_possible() -> None:
    """The page from the newest records; where one is missing, it says which."""
    try:
        render(newest("*-costs.json"), newest("*-two-nodes.json"), PAGE)
    except FileNotFoundError as missing:
        print(missing)


def main() -> None:
    """Render."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--costs", type=Path)
    parser.add_argument("--two-nodes", type=Path)
    parser.add_argument("--to", type=Path, default=PAGE)
    options = parser.parse_args()
    render(options.costs or newest("*-costs.json"), options.two_nodes or newest("*-two-nodes.json"), options.to)


if __name__ == "__main__":
    main()
