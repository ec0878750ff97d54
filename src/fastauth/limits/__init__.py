"""Token buckets for any Python service, with or without the server: see ``docs/limits.md``.

``LocalBuckets`` decides in a table that all processes of a machine share; ``RedisBuckets`` holds a limit across
machines, and decides in the local table while Redis does not answer; ``GuessBudget`` bounds failed attempts.
"""

from fastauth.core import Decision as Decision
from fastauth.domain.limits import Limit as Limit
from fastauth.domain.limits import LimitRefused as LimitRefused
from fastauth.limits.guesses import Attempt as Attempt
from fastauth.limits.guesses import GuessBudget as GuessBudget
from fastauth.limits.local import LocalBuckets as LocalBuckets
from fastauth.limits.local import TableRefused as TableRefused
from fastauth.limits.shared.address import RedisRefused as RedisRefused
from fastauth.limits.shared.buckets import RedisBuckets as RedisBuckets
from fastauth.limits.shared.leases import lease_bound as lease_bound

__all__ = [
    "Attempt",
    "Decision",
    "GuessBudget",
    "Limit",
    "LimitRefused",
    "LocalBuckets",
    "RedisBuckets",
    "RedisRefused",
    "TableRefused",
    "lease_bound",
]
