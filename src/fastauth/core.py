"""The one switch between the compiled core and its readable twin; nothing else imports either."""

import os

if os.environ.get("FASTAUTH_PURE_PYTHON") == "1":
    from fastauth._core_py import *
    from fastauth._core_py import IMPLEMENTATION as IMPLEMENTATION
else:  # a missing extension is an error, never a silent fallback
    from fastauth._core import *  # type: ignore[assignment]
    from fastauth._core import IMPLEMENTATION as IMPLEMENTATION
