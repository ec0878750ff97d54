"""Token buckets for any Python service, with or without the server: see ``docs/limits.md``.

``LocalBuckets`` decides in a table that all processes of a machine share; ``RedisBuckets`` holds a limit across
machines and falls back to the local table when Redis does not answer.
"""

from fastauth.core import Decision as Decision
from fastauth.domain.limits import Limit as Limit
from fastauth.domain.limits import LimitRefused as LimitRefused
from fastauth.limits.local import LocalBuckets as LocalBuckets
from fastauth.limits.local import TableRefused as TableRefused

__all__ = ["Decision", "Limit", "LimitRefused", "LocalBuckets", "TableRefused"]
