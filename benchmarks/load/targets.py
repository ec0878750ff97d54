"""Every target of a row of work, beside what the records say: met or not, and whether a second run says the same.

A target is a ratio within one round of a run, in which both figures are measured close to one another; what is quoted
is the median of the rounds. Figures of different runs are never divided by one another.
"""

import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple

Figures = Mapping[str, float]
_SAME: Final = 0.10


class Target(NamedTuple):
    """What is measured, as a name; what it has to be; and the figure, NaN where a baseline is absent."""

    work: str
    text: str
    value: Callable[[Figures], float]
    bound: float
    is_most: bool = False

    def is_met(self, value: float) -> bool:
        """Whether a value is good enough."""
        return value <= self.bound if self.is_most else value >= self.bound


def _by(row: str, other: str) -> Callable[[Figures], float]:
    return lambda figures: figures[row] / figures[other] if row in figures and other in figures else float("nan")


def _least(work: str, row: str, other: str, name: str, bound: float) -> Target:
    return Target(work, f"{bound:g} x {name}", _by(row, other), bound)


_VERIFY, _UNSEEN = "`GET /verify`, seen token", "`GET /verify`, every token unseen"
_LOGIN = "`POST /auth`, cheapest hash, session written"
_CLIENT, _REFRESH = "`POST /token`, client_credentials", "`POST /token`, refresh_token"

OF_SERVERS: Final = (
    _least(_VERIFY, "verify RS256", "go validate", "Go `/validate`", 3.6),
    _least(_VERIFY, "verify RS256", "hello", "bare granian hello", 0.9),
    _least(_UNSEEN, "verify_unseen RS256", "go validate", "Go `/validate`", 1.8),
    _least(f"{_LOGIN}, RS256", "login RS256", "go login", "Go `/auth`", 1.4),
    _least(f"{_LOGIN}, RS256", "login RS256", "sign RS256 beside login", "raw sign", 0.8),
    _least(f"{_LOGIN}, ES256", "login ES256", "go login", "Go `/auth`, RS256", 8),
    Target(
        "`POST /auth`, OWASP hash",
        "0.95 x (cores / hash time)",
        lambda figures: figures["dear_login OWASP"] * figures["hash OWASP s"],
        0.95,
    ),
    _least(f"{_CLIENT}, RS256", "client_credentials RS256", "sign RS256", "raw sign", 0.85),
    _least(f"{_REFRESH}, RS256", "refresh RS256", "sign RS256", "raw sign", 0.8),
    _least(f"{_CLIENT}, RS256", "client_credentials RS256", "node client_credentials RS256", "node oidc-provider", 1.4),
    _least(f"{_REFRESH}, RS256", "refresh RS256", "node refresh RS256", "node oidc-provider", 1.4),
    _least(f"{_CLIENT}, ES256", "client_credentials ES256", "node client_credentials RS256", "node's with RS256", 6),
    _least(f"{_REFRESH}, ES256", "refresh ES256", "node refresh RS256", "node's with RS256", 6),
    _least("`POST /introspect`", "introspect RS256", "hello beside introspect", "bare granian hello", 0.6),
    _least("`POST /introspect`", "introspect RS256", "node introspect", "node oidc-provider, opaque token", 5),
    _least("`POST /auth`, all limits on", "login limited", "login RS256", "without limits", 0.9),
    _least(
        "`POST /auth`, all limits through Redis", "login limited through Redis", "login RS256", "without limits", 0.9
    ),
    _least(
        "`GET /verify`, limit leased from Redis", "verify limited through Redis", "verify RS256", "without limit", 0.85
    ),
    Target("memory of a worker at rest", "70 MiB private", lambda figures: figures["worker MiB"], 70, is_most=True),
    Target("start to ready", "1.5 s", lambda figures: figures["start to ready s"], 1.5, is_most=True),
)
"""Those of ``side_by_side``."""

OF_RATIOS: Final = (
    ("verify in process, unseen RS256 token", "verify RS256, unseen : raw verify", "x raw verify", 0.85),
    ("verify in process, unseen RS256 token", "verify RS256, unseen : PyJWT", "x PyJWT", 2.8),
    ("verify in process, unseen RS256 token", "verify RS256, unseen : joserfc", "x joserfc", 1.7),
    ("verify in process, seen token", "verify RS256, seen : PyJWT", "x PyJWT", 60.0),
    ("issue in process, RS256", "issue RS256 : raw sign", "x raw sign", 0.97),
    ("one bucket decision from Python", "decision in the table : limits, moving window", "x `limits` in memory", 30.0),
    ("the core: a bucket decision", "bucket decision, Cython : twin", "x the twin", 3.0),
    ("the core: claim validation", "claims, decoded already, Cython : twin", "x the twin", 3.0),
    ("the core: the whole strict parse", "whole strict parse, Cython : twin", "x the twin", 5.0),
)
"""Those of ``make bench``, by the name of the ratio."""
OF_FIGURES: Final = (
    ("verify in process, seen token", "verify RS256, seen", "500,000/s", 500_000.0, False),
    ("one bucket decision from Python", "decision in the shared table", "250 ns", 250.0, True),
    ("limits in Redis, hot keys, exact", "exact decisions a Redis command, 64 callers", "20 a command", 20.0, False),
    ("limits in Redis, hot keys, leased", "leased decisions a Redis command, 64 callers", "20 a command", 20.0, False),
)


class _Asked(dict[str, float]):
    """Figures that are all there, of which it keeps which ones were asked for."""

    def __contains__(self, row: object) -> bool:
        return True

    def __missing__(self, row: str) -> float:
        self[row] = 1.0
        return 1.0


def rows_of_targets() -> frozenset[str]:
    """What ``OF_SERVERS`` are about."""
    asked = _Asked()
    for target in OF_SERVERS:
        target.value(asked)
    return frozenset(asked)


def figures_of(run: Mapping[str, Any]) -> dict[str, float]:
    """Each row's median over the rounds."""
    return {row: statistics.median(values) for row, values in run["rounds"].items()}


def by_round(target: Target, run: Mapping[str, Any]) -> list[float]:
    """What comes of a target in each round, in order of size. A figure that is not one of the rounds is its median in
    each.
    """
    rows, middle = run["rounds"], figures_of(run)
    rounds = len(rows["hello"])
    each = [
        {row: rows[row][number] if len(rows[row]) == rounds else middle[row] for row in rows}
        for number in range(rounds)
    ]
    return sorted(target.value(figures) for figures in each)


def _of_two(target: Target, first: float, second: float) -> str:
    """Met is what both runs say."""
    if first != first:
        return "-"
    return {0: "**no**", 1: "**1 of 2**", 2: "yes"}[target.is_met(first) + target.is_met(second)]


def _verdict(is_met: bool, value: float) -> str:
    return "-" if value != value else "yes" if is_met else "**no**"


def targets_table(record: dict[str, Any]) -> str:
    """Of the servers: each target, what came of it, whether that is enough, and what the second run said."""
    lines: list[str] = []
    differ: dict[str, list[bool]] = {"ratios": [], "others": []}
    for target in OF_SERVERS:
        rounds = by_round(target, record)
        first, second = statistics.median(rounds), statistics.median(by_round(target, record["again"]))
        unit = "" if target.bound >= 1.5 and target.is_most else " x"
        again = "-" if first != first else f"{second:.2f} ({second / first - 1:+.0%})"
        value = "absent" if first != first else f"{first:.2f}{unit}{_middle_half(rounds)}"
        bound = ("at most " if target.is_most else "at least ") + target.text
        lines.append(f"| {target.work} | {bound} | {value} | {_of_two(target, first, second)} | {again} |")
        differ["others" if target.is_most else "ratios"].append(abs(second / first - 1) > _SAME)
    head = f"| work, one core | target | measured (middle half of the rounds) | met | second run |\n|{' --- |' * 5}\n"
    ratios, others = differ["ratios"], differ["others"]
    told = (
        f"In {sum(ratios)} of these {len(ratios)} ratios the second run differs from the first by more than "
        f"{_SAME:.0%}, and in {sum(others)} of the {len(others)} figures that are no ratios. "
        f"{_spread(record['rounds'])}"
    )
    if idle := record["figures"].get("idle part of the core"):
        told += f" With nobody asking, all these servers together take {idle:.1%} of the core."
    return head + "\n".join(lines) + f"\n\n{told}"


def _spread(rounds: Mapping[str, Sequence[float]]) -> str:
    """How far the rounds of one row lie apart."""
    whole = len(rounds["hello"])
    factors = {row: max(values) / min(values) for row, values in rounds.items() if len(values) == whole}
    furthest = max(factors, key=lambda row: factors[row])
    return (
        f"Within the run, a row's fastest round is {statistics.median(factors.values()):.1f} times its slowest (the "
        f"median of the rows; verify RS256 {factors['verify RS256']:.1f}, bare granian's hello {factors['hello']:.1f}, "
        f"at most {factors[furthest]:.1f}: {furthest})."
    )


def _middle_half(rounds: Sequence[float]) -> str:
    if rounds[0] == rounds[-1]:  # it is measured once
        return ""
    low, _, high = statistics.quantiles(rounds, n=4, method="inclusive")
    return f" ({low:.2f} to {high:.2f})"


def in_process_table(micro: dict[str, Any]) -> str:
    """The targets of ``make bench``."""
    figures = {figure["name"]: figure["value"] for figure in micro["figures"]}
    lines = []
    for work, name, text, bound in OF_RATIOS:
        value = micro["ratios"][name]
        lines.append(f"| {work} | at least {bound:g} {text} | {value:.2f} x | {_verdict(value >= bound, value)} |")
    for work, name, text, bound, is_most in OF_FIGURES:
        value = figures[name]
        is_met = value <= bound if is_most else value >= bound
        wanted = f"at {'most' if is_most else 'least'} {text}"
        lines.append(f"| {work} | {wanted} | {value:,.0f} | {_verdict(is_met, value)} |")
    return "| work | target | measured | met |\n| --- | --- | --- | --- |\n" + "\n".join(lines)


def _growth(sizes: Sequence[float]) -> float:
    """The median of the last quarter as a part of that of the first."""
    quarter = max(1, len(sizes) // 4)
    return statistics.median(sizes[-quarter:]) / statistics.median(sizes[:quarter])


def overload_targets_table(overload: dict[str, Any], soak: dict[str, Any]) -> str:
    """The targets of overload, of the storm, and that memory stays flat."""
    lines = []

    def row(work: str, text: str, value: float, is_met: bool) -> None:
        lines.append(f"| {work} | {text} | {value:.2f} | {_verdict(is_met, value)} |")

    for name in ("fastauth, cheapest hash", "fastauth, OWASP hash"):
        points = {point["factor"]: point for point in overload["curves"][name]["points"]}
        peak = max(point["goodput_per_s"] for point in points.values())
        twice, tenfold, calm = points[2], points[10], points[0.8]
        hash_name = name.partition(", ")[2]
        part = twice["goodput_per_s"] / peak
        row(f"`/auth`, {hash_name}, 2 x capacity", "at least 0.9 of peak goodput", part, part >= 0.9)
        slower = twice["p99_ms"] / calm["p99_ms"]
        row(f"`/auth`, {hash_name}, 2 x capacity: p99", "below 3 x that at 0.8 x", slower, slower < 3)
        part = tenfold["goodput_per_s"] / peak
        row(f"`/auth`, {hash_name}, 10 x capacity", "at least 0.6 of peak goodput", part, part >= 0.6)
    storm = overload["storm"]
    verify = storm["verify_in_storm_per_s"] / storm["verify_quiet_per_s"]
    row("storm at 5 x: `/verify`", "at least 0.7 of its throughput", verify, verify >= 0.7)
    hashed = storm["login"]["goodput_per_s"] / storm["ceiling_per_s"]
    row("storm at 5 x: logins", "at least 0.25 of the hash ceiling", hashed, hashed >= 0.25)
    answers = {int(status): count for status, count in storm["refresh"]["answers"].items()}
    renewed = answers.get(200, 0) / sum(answers.values())
    row("storm at 5 x: refreshes that succeed", "all", renewed, renewed >= 1)
    idle = storm["idle_login"]["goodput_per_s"] / storm["ceiling_per_s"]
    row("logins with idle lanes", "at least 0.95 of the hash ceiling", idle, idle >= 0.95)
    growth = max(_growth([look["kib"] for look in worker["looks"]]) for worker in soak["workers"])
    row("private memory, from the first to the last quarter of the soak", "below 1.05 x", growth, growth < 1.05)
    return "| work | target | measured | met |\n| --- | --- | --- | --- |\n" + "\n".join(lines)


def profile_table(record: dict[str, Any]) -> str:
    """Whose code runs, of all the time that a worker computes, by journey."""
    owners = list(next(iter(record["profiles"].values())))
    lines = [
        f"| {journey} | {' | '.join(f'{parts[owner]:.0%}' for owner in owners)} |"
        for journey, parts in record["profiles"].items()
    ]
    return f"| journey | {' | '.join(owners)} |\n|{' --- |' * (len(owners) + 1)}\n" + "\n".join(lines)


def journeys_table(record: dict[str, Any]) -> str:
    """Requests a second of every journey on one core, by algorithm, database and limits, and those of the others."""
    figures = record["figures"]

    def cell(row: str) -> str:
        return f"{figures[row]:,.0f}" if row in figures else "-"

    columns = ("RS256", "ES256", "Ed25519", "PostgreSQL", "limited", "limited through Redis")
    journeys = {
        "login": "`POST /auth`, cheapest hash",
        "client_credentials": "`POST /token`, client_credentials",
        "refresh": "`POST /token`, refresh_token",
        "introspect": "`POST /introspect`",
        "verify": "`GET /verify`, seen token",
        "verify_unseen": "`GET /verify`, unseen",
        "jwks": "`GET /.well-known/jwks.json`",
    }
    lines = [
        f"| {text} | {' | '.join(cell(f'{journey} {column}') for column in columns)} |"
        for journey, text in journeys.items()
    ]
    own = (
        "| requests a second, one core | RS256 | ES256 | Ed25519 | RS256, PostgreSQL + Redis | RS256, all limits on "
        f"| RS256, all limits through Redis |\n|{' --- |' * 7}\n" + "\n".join(lines)
    )
    others = {
        "bare granian, hello": "hello",
        "bare granian, hello, under `chrt -b 0` as fastauth's event loop is": "hello SCHED_BATCH",
        "bare granian, reads a form": "form",
        "Go net/http, hello": "go hello",
        "Go, `/auth`, RS256, nothing hashed or stored": "go login",
        "Go, `/validate`": "go validate",
        "plain Python on granian, `/auth`, RS256, nothing hashed or stored": "python login",
        "plain Python on granian, `/validate`": "python validate",
        "node oidc-provider, client_credentials, RS256": "node client_credentials RS256",
        "node oidc-provider, refresh_token, RS256": "node refresh RS256",
        "node oidc-provider, client_credentials, ES256": "node client_credentials ES256",
        "node oidc-provider, refresh_token, ES256": "node refresh ES256",
        "node oidc-provider, introspection of an opaque token": "node introspect",
        "raw RS256 signatures": "sign RS256",
        "raw ES256 signatures": "sign ES256",
        "raw Ed25519 signatures": "sign Ed25519",
    }
    absent = "".join(f"\n\n{name} is absent: {reason}." for name, reason in record["absent"].items())
    return (
        own
        + "\n\n| others, one core | a second |\n| --- | --- |\n"
        + "\n".join(f"| {text} | {cell(row)} |" for text, row in others.items())
        + absent
    )


def against_table(record: dict[str, Any]) -> str:
    """Of two revisions: requests a second of both, and what the later one does of the other's, by round."""
    lines = []
    for row, sides in record["rows"].items():
        ratios = sorted(after / before for before, after in zip(sides["before"], sides["after"], strict=True))
        before, after = (statistics.median(sides[side]) for side in ("before", "after"))
        ratio = f"{statistics.median(ratios):.2f} x{_middle_half(ratios)}"
        lines.append(f"| {row} | {before:,.0f} | {after:,.0f} | {ratio} |")
    before_after = f"{record['before']} | {record['revision']}"
    head = f"| a second, one core | {before_after} | ratio (middle half of the rounds) |"
    return f"{head}\n|{' --- |' * 4}\n" + "\n".join(lines)
