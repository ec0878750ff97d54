"""Text from the network, as it may be shown on a terminal."""

import re
from typing import Final

_LONGEST: Final = 40
_ODD: Final = re.compile(r"[^A-Za-z0-9_ .:/-]")


def plain(text: str) -> str:
    """Nothing in it steers a terminal or a markup; the first 40 characters."""
    return _ODD.sub("?", text[:_LONGEST])
