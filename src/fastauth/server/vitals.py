"""What a worker tells of itself, gathered from its parts at each beat."""

from fastauth.backends.hash_scheduler import HashScheduler
from fastauth.endpoints.login_queue import EVERYBODY_ELSE, KNOWN_DEVICES, LoginQueue
from fastauth.server.counters import STATES, Counters
from fastauth.server.dependencies import Dependencies
from fastauth.server.lanes import LAST, LoopDelay
from fastauth.server.revocation_feed import RevocationFeed
from fastauth.server.workers import WorkerState
from fastauth.verifier import Verifier


class Vitals:
    """Knows where to look."""

    def __init__(
        self,
        delay: LoopDelay,
        hashing: HashScheduler,
        queue: LoginQueue,
        verifier: Verifier,
        feed: RevocationFeed,
        dependencies: Dependencies,
        counters: Counters,
    ) -> None:
        self._delay = delay
        self._hashing = hashing
        self._queue = queue
        self._verifier = verifier
        self._feed = feed
        self._dependencies = dependencies
        self._counters = counters
        self._checked = 0

    def look(self, state: WorkerState) -> None:
        """Write into ``state`` how this worker is."""
        hashing = self._hashing
        state.loop_delay_us = int(self._delay.usual_s * 1e6)
        state.hashing = hashing.running
        state.hash_us = int(hashing.each_thread_s * 1e6)
        state.waiting_known_device = hashing.length(KNOWN_DEVICES)
        state.waiting_login = hashing.length(EVERYBODY_ELSE)
        state.wait_known_device_us = int(hashing.wait_s(KNOWN_DEVICES, LAST) * 1e6)
        state.wait_login_us = int(hashing.wait_s(EVERYBODY_ELSE, LAST) * 1e6)
        state.sent_away = self._queue.line.expected
        state.retry_after_s = self._queue.retry_after_s()
        state.staleness_ms = int(min(self._feed.staleness_s(), 1e9) * 1e3)
        for dependency, breaker in self._dependencies.states().items():
            setattr(state, f"breaker_{dependency}", STATES.index(breaker))
        checked = self._verifier.checked
        self._counters.count_checked(checked - self._checked)
        self._checked = checked
