"""What a connection inherits from the socket that listens; whole servers are tried in ``tests/integration``."""

import errno
import os
import socket
from collections.abc import Iterator

import pytest

from fastauth.server.listening import OPTIONS, set_options

DOUBLED_BY_THE_KERNEL = (socket.SO_SNDBUF, socket.SO_RCVBUF)


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    """A socket that is bound and has the options."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        set_options(bound.fileno())
        yield bound


@pytest.fixture
def accepted(listener: socket.socket) -> Iterator[socket.socket]:
    """The server's side of a connection to it."""
    listener.listen()
    with socket.create_connection(listener.getsockname()):
        connection, _ = listener.accept()
        with connection:
            yield connection


@pytest.mark.parametrize(("level", "option", "value"), OPTIONS)
def test_an_accepted_connection_has_the_options_of_the_socket_that_listens(
    accepted: socket.socket, level: int, option: int, value: int
) -> None:
    factor = 2 if level == socket.SOL_SOCKET and option in DOUBLED_BY_THE_KERNEL else 1
    assert accepted.getsockopt(level, option) == factor * value


def test_the_socket_is_still_its_owners(listener: socket.socket) -> None:
    set_options(listener.fileno())
    assert listener.getsockname()[0] == "127.0.0.1"


def test_what_is_no_tcp_socket_is_refused() -> None:
    descriptors = os.pipe()
    try:
        with pytest.raises(OSError, match=f"Errno {errno.ENOTSOCK}"):
            set_options(descriptors[0])
    finally:
        for descriptor in descriptors:
            os.close(descriptor)
