"""fastauth: an authentication server for the moment when everyone arrives at once.

The public names are loaded when first used, so that a program which only
verifies tokens never imports the server.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fastauth.jose.claims import Claims as Claims
    from fastauth.jose.refusals import KeyRefused as KeyRefused
    from fastauth.jose.refusals import KeysUnavailable as KeysUnavailable
    from fastauth.jose.refusals import TokenRefused as TokenRefused
    from fastauth.server.app import create_app as create_app
    from fastauth.verifier import Verifier as Verifier

__version__ = "0.1.0"
__all__ = ["Claims", "KeyRefused", "KeysUnavailable", "TokenRefused", "Verifier", "__version__", "create_app"]

_HOMES = {
    "Claims": "fastauth.jose.claims",
    "KeyRefused": "fastauth.jose.refusals",
    "KeysUnavailable": "fastauth.jose.refusals",
    "TokenRefused": "fastauth.jose.refusals",
    "Verifier": "fastauth.verifier",
    "create_app": "fastauth.server.app",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'fastauth' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
