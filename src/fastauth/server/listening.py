"""The sockets that the workers listen on, with the limits of time and memory that only the kernel keeps.

granian waits for ever for a client that does not read, and Linux buffers 4 MB of answers for it. What is accepted
inherits every option from the socket that listens. See ``docs/decisions/0003-granian.md`` for the figures.
"""

import os
import socket
from typing import Any, Final

from granian.server.mp import MPServer

# From the first byte that is not acknowledged, or for which the client has no room because it does not read.
WRITE_TIMEOUT_MS: Final = 10_000
# A second line, in case that a connection is ever in a state that no other timeout ends. One probe that stays without
# an answer is enough: the write timeout counts for probes too.
KEEPALIVE_IDLE_S: Final = 30
KEEPALIVE_INTERVAL_S: Final = 5
# The kernel doubles both for what it needs itself. Neither bounds a message: one that is larger goes in pieces.
SEND_BUFFER_BYTES: Final = 32_768
RECEIVE_BUFFER_BYTES: Final = 65_536

OPTIONS: Final = (
    (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, WRITE_TIMEOUT_MS),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, KEEPALIVE_IDLE_S),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, KEEPALIVE_INTERVAL_S),
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES),
    (socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER_BYTES),
)


def set_options(descriptor: int) -> None:
    """In: a TCP socket that does not listen yet; it stays the caller's. Raises OSError when it is something else."""
    with socket.socket(fileno=os.dup(descriptor)) as listener:
        for level, option, value in OPTIONS:
            listener.setsockopt(level, option, value)


def run_worker(worker_id: int, process_name: str | None, load: Any, sockets: Any, *options: Any) -> None:
    """What a worker's process runs: granian's own worker, on a socket that is made here.

    In: what ``MPServer`` hands to its own function for this.
    """
    (spec, _), shared = sockets
    holder = spec.build()  # bound, one a worker: they share the port by SO_REUSEPORT; granian makes it listen
    set_options(holder.get_fd())
    MPServer._spawn_asgi_lifespan_worker(worker_id, process_name, load, ((None, holder), shared), *options)
