"""Where tokens are signed: dear signatures in threads, cheap ones at once."""

from collections.abc import Awaitable, Callable
from typing import Protocol

from fastauth.domain.errors import IssueFailed
from fastauth.jose.issuer import IssuedToken, Issuer

Job = Callable[[], IssuedToken]


class Pool(Protocol):
    """Runs jobs in threads, a bounded number of them; raises Overloaded beyond."""

    def run(self, job: Job) -> Awaitable[IssuedToken]: ...


class Signing:
    """Runs the jobs that make tokens."""

    def __init__(self, issuer: Issuer, pool: Pool) -> None:
        self.issuer = issuer
        self._pool = pool

    async def run(self, job: Job) -> IssuedToken:
        """The token that ``job`` makes. Raises IssueFailed, Overloaded."""
        # An RSA signature on the event loop would make everybody else a millisecond late; for the others the way to a
        # thread and back costs more than the signature.
        return await self._pool.run(lambda: _made(job)) if self.issuer.is_slow else _made(job)


def _made(job: Job) -> IssuedToken:
    try:
        return job()
    except Exception as error:
        raise IssueFailed(f"no token could be made: {type(error).__name__}") from error
