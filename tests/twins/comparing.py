"""What a function made of its arguments, in a form that two implementations can be compared by."""

from collections.abc import Callable
from typing import Any


def outcome(function: Callable[..., Any], *arguments: Any) -> tuple[str, Any]:
    """The result, or the type of the exception; results of equal value and different type differ."""
    try:
        result = function(*arguments)
    except Exception as error:  # noqa: BLE001 - whatever it is, the other must raise it too
        return "raised", type(error)
    parts = result if isinstance(result, tuple) else (result,)
    return "returned", [(type(part), part) for part in parts]
