"""``python -m fastauth`` is the command ``fastauth``."""

from fastauth.cli import main

main()
