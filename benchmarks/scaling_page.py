"""Renders ``docs/scaling.md`` (placeholder while built)."""


def render_if_possible() -> None:
    print("later")
