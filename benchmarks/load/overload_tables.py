"""The tables of the page that are about overload: the curves, the storm, the line, and which rule admits best."""

from typing import Any


def overload_table(record: dict[str, Any]) -> str:
    """Each server by offered load: goodput as a part of its own peak, and the times of what was served."""
    rows = []
    for name, curve in record["curves"].items():
        peak = max(point["goodput_per_s"] for point in curve["points"])
        calm = next(point["p99_ms"] for point in curve["points"] if point["factor"] == 0.8)
        for point in curve["points"]:
            by_calm = "-" if point["p99_ms"] is None else f"{point['p99_ms'] / calm:.1f}"
            rows.append(
                f"| {name} | {point['factor']:g} x | {point['offered_per_s']:.0f}/s | {point['goodput_per_s']:.0f}/s "
                f"| {point['goodput_per_s'] / peak:.2f} | {_ms(point['p50_ms'])} | {_ms(point['p99_ms'])} "
                f"| {by_calm} | {_answers(point['answers'])} |"
            )
    head = (
        "| server | load | offered | answered 200 in 3 s | of its peak | p50 | p99 | p99 by that at 0.8 x | answers |"
    )
    return head + f"\n|{' --- |' * 9}\n" + "\n".join(rows)


def _ms(value: float | None) -> str:
    return "-" if value is None else f"{value:.0f} ms"


def _answers(answers: dict[str, int]) -> str:
    names = {"0": "none", "-1": "left"}
    total = sum(answers.values())
    return ", ".join(f"{names.get(status, status)} {count / total:.0%}" for status, count in answers.items())


def storm_table(record: dict[str, Any]) -> str:
    """What a storm of logins does to the other lanes, and they to it."""
    storm = record["storm"]
    ceiling = storm["ceiling_per_s"]
    refreshes = {int(status): count for status, count in storm["refresh"]["answers"].items()}
    succeeded = refreshes.get(200, 0) / sum(refreshes.values())
    rows = (
        (
            "`/verify`, requests a second as without the storm",
            storm["verify_in_storm_per_s"] / storm["verify_quiet_per_s"],
            0.7,
        ),
        ("logins meanwhile, part of what the core could hash", storm["login"]["goodput_per_s"] / ceiling, 0.25),
        ("refreshes that succeeded", succeeded, 1.0),
        (
            "logins with the other lanes idle, part of what the core could hash",
            storm["idle_login"]["goodput_per_s"] / ceiling,
            0.95,
        ),
    )
    lines = [f"| {text} | {value:.2f} | {target} |" for text, value, target in rows]
    return "| 5 x as many logins as can be hashed | measured | target |\n| --- | --- | --- |\n" + "\n".join(lines)


def line_text(record: dict[str, Any]) -> str:
    """The line of those who come back, and those who do not wait."""
    line, leaving = record["line"], record["leaving"]
    jobs, answers = leaving["hash_jobs"], {int(status): count for status, count in leaving["answers"].items()}
    order = line["order"]
    together = order["waiting_together"]
    return (
        f"Of {line['clients']} clients who all came back with their tickets {line['served']} were served, in "
        f"{line['attempts']} requests; {order['overtakings_per_pair']:.1%} of all pairs were served in another order "
        f"than they had come, half of the clients within {order['median_places_moved']} places of their own; of "
        f"{together['pairs']} pairs that waited at the same time, {together['overtaken']}. With half "
        f"a second of patience and twice the load {answers.get(-1, 0)} clients left: {jobs['left']} jobs were dropped "
        f"before the hash, {jobs['hashed_for_nobody']} clients left during theirs; {jobs['hashed']} hashes were "
        f"finished for somebody who was there, {answers.get(200, 0)} answers arrived."
    )


def admission_table(record: dict[str, Any]) -> str:
    """Each rule on each recorded trace: what its answers were worth, beside the best fixed limit of that very trace."""
    names = ("gate", "codel", "gradient", "aimd", "best fixed")
    rows = []
    for trace, outcomes in record["traces"].items():
        best = outcomes["best fixed"]
        cells = [f"{outcomes[name]['worth'] / best['worth']:.3f} ({outcomes[name]['p99_s']:.1f} s)" for name in names]
        one_for_all = outcomes["one fixed for all"]["worth"] / best["worth"]
        rows.append(
            f"| {trace} | {outcomes['logins']} | {' | '.join(cells)}, limit {best['limit']} | {one_for_all:.3f} |"
        )
    head = "| trace | logins | fastauth | CoDel | gradient | AIMD | best limit for this trace | best limit for all |"
    return head + f"\n|{' --- |' * 8}\n" + "\n".join(rows)
