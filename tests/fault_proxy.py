"""A TCP proxy that can be told to misbehave, between fastauth and anything that it depends on.

It runs on an event loop in a thread of its own. A fault holds for connections that exist and for those to come.
"""

import asyncio
import contextlib
import random
import socket
import struct
import threading
from collections.abc import Iterator
from typing import Final, Literal

Fault = Literal["none", "delay", "jitter", "drop", "reset", "half_open", "slow_drip", "garbage"]

# What each does: ``delay`` and ``jitter`` hold every piece back; ``drop`` passes nothing on, in either direction, and
# accepts connections; ``reset`` ends every connection; ``half_open`` passes on what the client sends and loses every
# answer; ``slow_drip`` passes answers on a byte at a time; ``garbage`` answers with random text.
FAULTS: Final[tuple[Fault, ...]] = ("delay", "jitter", "drop", "reset", "half_open", "slow_drip", "garbage")
_CHUNK: Final = 65_536


class FaultProxy:
    """``port`` leads to the target; ``connections`` counts those that are open."""

    def __init__(self, target_port: int) -> None:
        self.connections = 0
        self._target_port = target_port
        self._fault: Fault = "none"
        self._delay_s = 0.1
        self._open: set[asyncio.StreamWriter] = set()
        self._changed: asyncio.Event
        self._loop = asyncio.new_event_loop()
        started = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(started,), name="fault-proxy", daemon=True)
        self._thread.start()
        started.wait()

    def set(self, fault: Fault, delay_s: float = 0.1, *, ends: bool = True) -> None:
        """From now on; ``none`` heals, and ends the connections that have lost bytes unless ``ends`` is false."""
        asyncio.run_coroutine_threadsafe(self._set(fault, delay_s, ends), self._loop).result(5)

    def close(self) -> None:
        """End everything."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    async def _set(self, fault: Fault, delay_s: float, ends: bool) -> None:
        self._fault, self._delay_s = fault, delay_s
        if fault == "reset" or (fault == "none" and ends):
            for writer in list(self._open):
                _abort(writer)

    def _run(self, started: threading.Event) -> None:
        asyncio.set_event_loop(self._loop)
        server = self._loop.run_until_complete(asyncio.start_server(self._serve, "127.0.0.1", 0))
        self.port: int = server.sockets[0].getsockname()[1]
        started.set()
        self._loop.run_forever()
        server.close()
        for writer in list(self._open):
            _abort(writer)
        tasks = asyncio.all_tasks(self._loop)
        for task in tasks:
            task.cancel()
        self._loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
        self._loop.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._open.add(writer)
        upstream: asyncio.StreamWriter | None = None
        try:
            if self._fault == "reset":
                return
            answers, upstream = await asyncio.open_connection("127.0.0.1", self._target_port)
            self._open.add(upstream)
            pumps = [
                asyncio.ensure_future(self._pump(reader, upstream, is_answer=False)),
                asyncio.ensure_future(self._pump(answers, writer, is_answer=True)),
            ]
            _, rest = await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
            for pump in rest:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)
        except OSError:
            pass
        finally:
            self.connections -= 1
            for one in (writer, upstream):
                if one is not None:
                    self._open.discard(one)
                    _abort(one)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, is_answer: bool) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(_CHUNK):
                await self._pass_on(data, writer, is_answer=is_answer)

    async def _pass_on(self, data: bytes, writer: asyncio.StreamWriter, *, is_answer: bool) -> None:
        match self._fault:
            case "drop":
                return
            case "half_open":
                if is_answer:
                    return
            case "delay":
                await asyncio.sleep(self._delay_s)
            case "jitter":
                await asyncio.sleep(random.random() * self._delay_s)
            case "garbage":
                if is_answer:
                    # Text: some other bytes send asyncpg's reader of messages into a loop that never ends.
                    data = bytes(random.choices(range(32, 127), k=len(data)))
            case "slow_drip":
                if is_answer:
                    for byte in data:
                        writer.write(bytes([byte]))
                        await writer.drain()
                        await asyncio.sleep(self._delay_s)
                    return
        writer.write(data)
        await writer.drain()


def _abort(writer: asyncio.StreamWriter) -> None:
    """RST and not FIN."""
    sock = writer.get_extra_info("socket")
    if sock is not None:
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


@contextlib.contextmanager
def fault_proxy(target_port: int) -> Iterator[FaultProxy]:
    """A proxy to a port of 127.0.0.1, without any fault at first."""
    with contextlib.closing(FaultProxy(target_port)) as proxy:
        yield proxy
