"""The sockets that the workers listen on, with the limits of time and memory that only the kernel can keep.

granian waits for ever for a client that does not read its answers, and Linux buffers up to 4 MiB of them. Accepted
sockets inherit every option from the one that listens. See ``docs/decisions/0003-granian.md`` for the figures.
"""

import os
import socket
from typing import Any, Final

from granian.server.mp import MPServer

# From the first byte that is not acknowledged, or not taken because the client does not read.
WRITE_TIMEOUT_MS: Final = 10_000
KEEPALIVE_IDLE_S: Final = 30
KEEPALIVE_INTERVAL_S: Final = 5
KEEPALIVE_PROBES: Final = 3
# The kernel doubles both for its own needs. The largest request is 80 KiB; an answer may be larger than its buffer.
SEND_BUFFER_BYTES: Final = 32_768
RECEIVE_BUFFER_BYTES: Final = 65_536

OPTIONS: Final = (
    (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, WRITE_TIMEOUT_MS),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, KEEPALIVE_IDLE_S),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, KEEPALIVE_INTERVAL_S),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, KEEPALIVE_PROBES),
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES),
    (socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER_BYTES),
)


def set_options(descriptor: int) -> None:
    """In: a TCP socket that does not listen yet, still the caller's afterwards. Raises OSError if it is not one."""
    with socket.socket(fileno=os.dup(descriptor)) as listener:
        for level, option, value in OPTIONS:
            listener.setsockopt(level, option, value)


def run_worker(worker_id: int, process_name: str | None, load: Any, sockets: Any, *options: Any) -> None:
    """granian's own worker, but that its socket is made here; it is granian that makes it listen.

    In: what ``MPServer`` hands to the target of a worker's process.
    """
    (spec, _), shared = sockets
    holder = spec.build()  # one socket a worker: they share the port by SO_REUSEPORT
    set_options(holder.get_fd())
    MPServer._spawn_asgi_lifespan_worker(worker_id, process_name, load, ((None, holder), shared), *options)
