"""What callgrind runs: ``python -m benchmarks.instructions FOLDER NAME...``; ``callgrind.py`` starts it."""

import gc
import sys
from pathlib import Path

from benchmarks.instructions.workloads import count

gc.disable()  # a collection would fall into one count and not into the next
count(sys.argv[2:], Path(sys.argv[1]))
