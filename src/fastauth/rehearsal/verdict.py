"""What broke first, or would, and what to change."""

from typing import Final

from fastauth.rehearsal.course import Row
from fastauth.rehearsal.plan import Lane
from fastauth.rehearsal.report import MET_SHARE, Ceiling, LaneReport, Report, Verdict, rate_text
from fastauth.rehearsal.watch import GONE

_LIMITS: Final[dict[Lane, tuple[str, ...]]] = {
    "login": ("login_per_ip", "login_global", "login_per_user"),
    "refresh": ("refresh_per_ip", "refresh_per_family", "token_per_client"),
    "verify": ("verify_per_ip",),
}
_ONE_ADDRESS: Final = "a rehearsal comes from one address and a crowd from many, so lift it for the rehearsal (off)"
_OF_LIMITS: Final = {
    "login_per_ip": _ONE_ADDRESS,
    "refresh_per_ip": _ONE_ADDRESS,
    "verify_per_ip": _ONE_ADDRESS,
    "login_global": "raise it if the ceiling of logins is higher",
    "login_per_user": "log in as more users (--users)",
    "refresh_per_family": "spread the refreshes over more sessions (--sessions)",
    "token_per_client": "raise it",
}
_PROCESSOR: Final = (
    "more FASTAUTH_WORKERS if cores are idle, else more cores or nodes (docs/operating.md, Scaling); "
    "fastauth top shows what is busy"
)
_HASHES: Final = (
    "more cores or more nodes (docs/operating.md, Scaling): a password check takes a core; "
    "FASTAUTH_PASSWORDS__PROFILE is what one costs, and owasp the cheapest that protects"
)
_ENDS: Final = {
    "overloaded": "a full queue (503 overloaded)",
    "too_slow": "the p99 (--p99)",
    "growing_queue": "a queue that grows",
    "left": "the patience of clients",
    "lost": "lost connections",
}
_SAID: Final = {
    "left": "gave no answer within the clients' patience",
    "lost": "gave no connection, or closed it without an answer",
    "timeout": "called answers off (503 timeout)",
    "unavailable": "could not reach something it needs (503 unavailable)",
}


def judge(report: Report, refused_by_lane: dict[str, int] | None) -> Verdict:
    """In: a report without its verdict, and whom the server's lanes sent away meanwhile, None if nobody can say."""
    trouble = _first_trouble(report)
    generator = report.generator
    if not generator.kept_up and (trouble is None or trouble[2] in ("left", "lost")):
        return Verdict(
            "generator",
            None,
            "the generator, not the server, was the bound: "
            f"it was {generator.late_p99_ms:,.0f} ms late (p99) and computed {generator.busy:.0%} of its time",
            "generate from a machine with idle cores, with more --generators, or at lower rates",
        )
    if trouble is not None:
        return _of_trouble(report, *trouble, refused_by_lane)
    return _of_ceilings(report)


def _first_trouble(report: Report) -> tuple[int, LaneReport, str] | None:
    """When, in which lane, the commonest reason."""
    found: list[tuple[int, float, LaneReport, Row]] = []
    for lane in (one for one in report.lanes if not one.met):  # a bad second of a plan that was met broke nothing
        bad = next((row for row in lane.rows if row.good < row.offered * MET_SHARE), None)
        if bad is not None:
            found.append((bad.at_s, bad.good / bad.offered, lane, bad))
    if not found:
        return None
    at_s, _, lane, row = min(found, key=lambda one: one[:2])
    return at_s, lane, max(row.codes, key=lambda code: row.codes[code], default="lost")


def _of_trouble(
    report: Report, at_s: int, lane: LaneReport, cause: str, refused_by_lane: dict[str, int] | None
) -> Verdict:
    name = lane.lane
    dependency = next((event.what for event in report.events if event.is_trouble and event.at_s <= at_s + 2), None)
    if cause in ("lost", "left") and dependency == GONE:
        return Verdict(
            "server gone",
            name,
            f"the server stopped answering, /readyz too, and {name} {_SAID[cause]}",
            "see its log: did it end, or was it ended? (docs/operating.md, Events in the log)",
            at_s,
        )
    if cause in ("unavailable", "timeout", "lost", "left") and dependency is not None:
        return Verdict(
            f"dependency {dependency}",
            name,
            f"the server reported trouble with {dependency}, and {name} {_SAID[cause]}",
            f"look at {dependency}: fastauth doctor, and the log of the server (docs/operating.md, Events in the log)",
            at_s,
        )
    if cause in ("rate_limited", "temporarily_unavailable") and lane.statuses.get(429):
        return _of_limit(name, at_s, report.refused_by_limit)
    if cause == "overloaded":
        return _of_overload(lane, at_s, refused_by_lane)
    if cause in ("invalid_grant", "token_refused", "invalid_credentials"):
        return Verdict(
            cause,
            name,
            f"{name} was refused with {cause}: its tokens or passwords are not good any more",
            "was a session ended, a password changed or a key rotated? See the audit stream (docs/logging.md)",
            at_s,
        )
    return Verdict(
        f"{name} {cause}",
        name,
        f"{name}: the server {_SAID.get(cause, f'answered {cause}')}",
        _PROCESSOR if cause in ("left", "lost") else "see the log of the server (docs/operating.md, Events in the log)",
        at_s,
    )


def _of_limit(name: Lane, at_s: int, refused_by_limit: dict[str, int] | None) -> Verdict:
    counts = {limit: (refused_by_limit or {}).get(limit, 0) for limit in _LIMITS[name]}
    limit = max(counts, key=lambda one: counts[one])
    setting = f"FASTAUTH_LIMITS__{limit.upper()}"
    if not counts[limit]:
        several = " or ".join(_LIMITS[name])
        return Verdict(
            f"limit {several}",
            name,
            f"a rate limit refused {name} (429): {several}; this server does not show us which",
            f"{setting} and its like: {_OF_LIMITS[limit]}; rehearse on the machine itself to be told which",
            at_s,
        )
    return Verdict(
        f"limit {limit}",
        name,
        f"the rate limit {limit} refused {counts[limit]:,} of {name} (429)",
        f"{setting}: {_OF_LIMITS[limit]}; docs/limits.md says what it protects",
        at_s,
    )


def _of_overload(lane: LaneReport, at_s: int, refused_by_lane: dict[str, int] | None) -> Verdict:
    told = f", and those sent away were told to come back in up to {lane.retry_after_s} s" if lane.retry_after_s else ""
    if lane.lane != "login":
        return Verdict(
            f"{lane.lane} overloaded",
            lane.lane,
            f"{lane.lane} took too long inside (503 overloaded){told}",
            f"{_PROCESSOR}; the database if it is slow",
            at_s,
        )
    if refused_by_lane is not None and not refused_by_lane.get("login", 0) + refused_by_lane.get("known_device", 0):
        return Verdict(
            "limit login_per_user",
            "login",
            "too many logins of one account were under way at once: they held its guess budget (503 overloaded)",
            "log in as more users (--users): a crowd is not one account",
            at_s,
        )
    return Verdict(
        "login overloaded",
        "login",
        f"more logins came than password checks can be made (503 overloaded){told}",
        _HASHES,
        at_s,
    )


def _of_ceilings(report: Report) -> Verdict:
    known = [lane for lane in report.lanes if lane.ceiling is not None and lane.share is not None]
    if not known:
        return Verdict(
            "nothing", None, "nothing broke; without ceilings nobody knows what would", "leave --no-ceilings out"
        )
    found = [lane for lane in known if lane.ceiling is not None and lane.ceiling.is_found]
    first = max(found or known, key=lambda lane: lane.share or 0.0)
    ceiling = first.ceiling or Ceiling(0.0, None, [])
    if ceiling.cause is None or not ceiling.is_found:
        return Verdict(
            "nothing",
            first.lane,
            f"nothing broke; {first.lane} is nearest to what was tried, and went on at {ceiling.per_s:,.0f}/s",
            "rehearse at higher rates, or with a longer --ceiling-for, to find the ceiling"
            + (", from more cores: the generator could offer no more" if ceiling.is_generator else ""),
        )
    return Verdict(
        f"{first.lane} {ceiling.cause}",
        first.lane,
        f"nothing broke; {first.lane} would first: the plan is {first.share or 0:.0%} of its ceiling "
        f"({rate_text(ceiling.per_s)}), which {_ENDS.get(ceiling.cause, ceiling.cause)} ends",
        _HASHES if first.lane == "login" and not ceiling.cause.startswith("limit") else _advice(ceiling.cause),
    )


def _advice(cause: str) -> str:
    limit = cause.removeprefix("limit ")
    if limit in _OF_LIMITS:
        return f"FASTAUTH_LIMITS__{limit.upper()}: {_OF_LIMITS[limit]}"
    return _PROCESSOR
