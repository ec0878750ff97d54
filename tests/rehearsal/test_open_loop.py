"""The open-loop generator against small servers that stall, close and keep silent."""

import asyncio
import contextlib
import json
import random
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, cast
from urllib.parse import parse_qs

import pytest
import uvloop

from fastauth.rehearsal.arrivals import Segment, arrivals, steady
from fastauth.rehearsal.clients import Again, Answer, FixedRequests, Logins, RefreshChains, TicketLogins
from fastauth.rehearsal.open_loop import Stream, drive
from fastauth.rehearsal.samples import GeneratorLateError, Lateness, Result, Samples, StreamResult, joined, served_order
from tests.cases import each
from tests.integration.running import free_port, wait_for

GET = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"
Handler = Callable[[bytes, asyncio.Transport], None]


class Asked(NamedTuple):
    """A request that reached the server, and when, on the monotonic clock."""

    at_s: float
    request: bytes


class SmallServer:
    """On a free port, on an event loop in a thread of its own; what it does with a request is up to ``handler``."""

    def __init__(self, handler: Handler) -> None:
        self.handler = handler
        self.asked: list[Asked] = []
        self.open: set[asyncio.Transport] = set()
        self.most_open = 0
        self.left = 0  # connections that the client closed
        self._loop = asyncio.new_event_loop()
        self._server = self._loop.run_until_complete(
            self._loop.create_server(lambda: _Served(self), "127.0.0.1", 0, backlog=512)
        )
        self.port: int = self._server.sockets[0].getsockname()[1]
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

    async def end(self) -> None:
        """Listen no more, and close what is open."""
        me = asyncio.current_task()
        while accepting := [task for task in asyncio.all_tasks() if task is not me]:
            await asyncio.gather(*accepting)  # asyncio loses what it accepted if the server is closed meanwhile
        self._server.close()
        for transport in list(self.open):
            transport.abort()
        await asyncio.sleep(0)  # they are closed in the next turn of the loop

    def close(self) -> None:
        asyncio.run_coroutine_threadsafe(self.end(), self._loop).result(5)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


class _Served(asyncio.Protocol):
    def __init__(self, server: SmallServer) -> None:
        self._server = server
        self._received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._server.open.add(self._transport)
        self._server.most_open = max(self._server.most_open, len(self._server.open))

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, end, body = self._received.partition(b"\r\n\r\n")
        length = int(head.partition(b"Content-Length: ")[2].partition(b"\r\n")[0] or 0)
        if end and len(body) >= length:
            request, self._received = self._received, b""
            self._server.asked.append(Asked(time.monotonic(), request))
            self._server.handler(request, self._transport)

    def eof_received(self) -> None:
        self._server.left += 1

    def connection_lost(self, exc: Exception | None) -> None:
        self._server.open.discard(self._transport)


@contextlib.contextmanager
def small_server(handler: Handler) -> Iterator[SmallServer]:
    with contextlib.closing(SmallServer(handler)) as server:
        yield server


def answer(body: object = None, status: int = 200, *lines: str) -> bytes:
    text = json.dumps(body)
    more = "".join(f"{line}\r\n" for line in lines)
    return f"HTTP/1.1 {status} Reason\r\n{more}Content-Length: {len(text)}\r\n\r\n{text}".encode()


def answers_all(request: bytes, transport: asyncio.Transport) -> None:
    transport.write(answer())


def keeps_silent(request: bytes, transport: asyncio.Transport) -> None:
    pass


def run(server: SmallServer, *streams: Stream) -> Result:
    return uvloop.run(drive(server.port, streams))


def gets(segments: list[Segment], **more: Any) -> Stream:
    return Stream("get", FixedRequests([GET]), segments, **more)


# Schedules


@each(
    ("segments", "count"),
    [
        (steady(2.0, 50.0), 100),
        ([Segment(0.1, 30, 30)], 3),
        ([Segment(10, 0, 100)], 500),
        ([Segment(10, 100, 0)], 500),
        ([Segment(1, 10, 10), Segment(5, 0, 0), Segment(1, 1000, 1000)], 1010),
        ([], 0),
    ],
)
def test_a_schedule_has_as_many_requests_as_its_rates_say(segments: list[Segment], count: int) -> None:
    dues = arrivals(segments)
    assert len(dues) == count
    assert list(dues) == sorted(dues)
    assert all(0 <= due_s <= sum(segment.seconds for segment in segments) for due_s in dues)


def test_evenly_spaced_requests_are_where_their_segment_puts_them() -> None:
    dues = arrivals([Segment(1, 4, 4), Segment(2, 0, 0), Segment(1, 2, 2)])
    assert list(dues) == pytest.approx([0, 0.25, 0.5, 0.75, 3.0, 3.5])
    ramp = arrivals([Segment(10, 0, 100)])  # half of the time, a quarter of the requests
    assert sum(due_s < 5 for due_s in ramp) == 125


def test_poisson_arrivals_have_the_rate_and_the_spread_and_come_again_with_their_seed() -> None:
    segments = [Segment(100, 50, 150)]
    dues = arrivals(segments, poisson_seed=1)
    assert dues == arrivals(segments, poisson_seed=1) != arrivals(segments, poisson_seed=2)
    assert len(dues) == pytest.approx(10_000, abs=500)
    seconds = [sum(second <= due_s < second + 1 for due_s in dues) for second in range(45, 55)]
    assert sum(seconds) / 10 == pytest.approx(100, abs=15)
    assert len(set(seconds)) > 3


# Times


@each("most", [4, 400])
def test_every_request_that_was_due_while_the_server_stalled_shows_the_stall(most: int) -> None:
    stall: list[float] = []

    def stalls_once(request: bytes, transport: asyncio.Transport) -> None:
        if len(server.asked) == 20:
            stall.append(time.monotonic())
            time.sleep(0.3)
            stall.append(time.monotonic())
        transport.write(answer())

    with small_server(stalls_once) as server:
        result = run(server, gets(steady(0.6, 200.0), connections=4, most_connections=most))
    began_s, ended_s = (moment - result.started_s for moment in stall)
    due_meanwhile = result["get"].between(began_s, ended_s)
    assert len(due_meanwhile) > 50
    assert all(row.due_s + row.took_s >= ended_s - 1e-5 for row in due_meanwhile.rows())
    assert result["get"].counts() == {200: 120}
    assert result.streams["get"].queued > 0
    assert server.most_open == result.streams["get"].most_open <= most


def test_streams_run_at_once_each_by_its_own_schedule() -> None:
    with small_server(answers_all) as server:
        result = run(
            server,
            gets([Segment(0.1, 100, 100), Segment(0.1, 0, 0), Segment(0.1, 500, 500)]),
            Stream("poisson", FixedRequests(["GET /p HTTP/1.1\r\n\r\n"]), steady(0.3, 200), poisson_seed=3),
        )
    assert len(result["get"]) == 60
    assert len(result["get"].between(0.2, 0.3)) == 50
    assert result["poisson"].due_s == pytest.approx(list(arrivals(steady(0.3, 200), 3)), abs=1e-6)
    reached = [asked.at_s - result.started_s for asked in server.asked if asked.request == GET]
    assert all(at_s >= due_s - 1e-5 for at_s, due_s in zip(reached, result["get"].due_s, strict=True))
    assert sum(asked.request != GET for asked in server.asked) == len(result["poisson"])


def test_a_generator_that_is_late_itself_says_so() -> None:
    class Slow(FixedRequests):
        def request(self, number: int) -> bytes:
            if number == 5:
                time.sleep(0.1)
            return super().request(number)

    with small_server(answers_all) as server:
        result = run(server, Stream("get", Slow([GET]), steady(0.3, 100.0)))
    assert result.streams["get"].late_s.p99 > 0.07
    assert max(result["get"].took_s) > 0.09  # and it does not hide it
    with pytest.raises(GeneratorLateError, match="get: requests left late"):
        result.require_punctual()


def test_a_generator_without_time_for_its_connections_was_the_bottleneck() -> None:
    def result(busy: float, queued: int, late_p99_s: float = 0.001) -> Result:
        stream = StreamResult(Samples(1.0, [0.0] * 100), Lateness(0.0, late_p99_s, late_p99_s), queued, 1)
        return Result(0.0, busy, {"get": stream})

    result(1.0, 1).require_punctual()
    result(0.5, 50).require_punctual()
    result(0.5, 0, 0.02).require_punctual(late_p99_s=0.05)
    for bottleneck in (result(0.95, 50), result(0.1, 0, 0.006)):
        with pytest.raises(GeneratorLateError):
            bottleneck.require_punctual()


# Connections


def test_connections_are_opened_before_the_clock_starts_and_used_in_turn() -> None:
    with small_server(answers_all) as server:
        seen: set[asyncio.Transport] = set()

        def note(request: bytes, transport: asyncio.Transport) -> None:
            seen.add(transport)
            transport.write(answer())

        server.handler = note
        result = run(server, gets(steady(0.1, 400.0), connections=8, most_connections=8))
    assert (server.most_open, len(seen)) == (8, 8)
    assert result["get"].counts() == {200: 40}


def test_a_client_leaves_when_its_patience_is_over_and_the_server_sees_it() -> None:
    with small_server(keeps_silent) as server:
        result = run(server, gets(steady(0.1, 200.0), connections=2, patience_s=0.15))
        wait_for(lambda: not server.open)
    samples = result["get"]
    assert samples.counts() == {-1: 20}
    assert server.left >= 20
    assert all(0.15 <= took_s < 1.0 for took_s in samples.took_s)


def test_who_finds_no_connection_in_time_is_never_answered() -> None:
    with small_server(keeps_silent) as server:
        result = run(server, gets(steady(0.01, 10_000.0), connections=1, most_connections=3, patience_s=0.2))
    counts = result["get"].counts()
    assert result["get"].status[:3] == [-1] * 3
    assert counts[-1] + counts[0] == 100
    assert len(server.asked) == counts[-1]  # the place of a client that left is free for another
    assert result.streams["get"].most_open == 3
    assert all(0.2 <= took_s < 1.0 for took_s in result["get"].took_s)


@each("lines", [["Connection: close"], []])
def test_a_server_that_closes_after_each_answer_is_survived(lines: list[str]) -> None:
    def answers_and_closes(request: bytes, transport: asyncio.Transport) -> None:
        transport.write(answer(None, 200, *lines))
        transport.close()

    with small_server(answers_and_closes) as server:
        result = run(server, gets(steady(0.1, 400.0), connections=4))
    assert result["get"].counts() == {200: 40}


@each("harm", [lambda transport: transport.close(), lambda transport: transport.abort()])
def test_a_request_whose_connection_is_closed_is_never_answered_and_the_rest_is(
    harm: Callable[[asyncio.Transport], None],
) -> None:
    def closes_on_every_second(request: bytes, transport: asyncio.Transport) -> None:
        if len(server.asked) % 2:
            harm(transport)
        else:
            transport.write(answer())

    with small_server(closes_on_every_second) as server:
        result = run(server, gets(steady(0.1, 400.0), connections=4))
    assert result["get"].counts() == {0: 20, 200: 20}


def test_a_server_that_goes_away_ends_nothing_but_its_answers() -> None:
    ending: list[asyncio.Task[None]] = []

    def goes_away(request: bytes, transport: asyncio.Transport) -> None:
        transport.write(answer())
        if len(server.asked) == 10:
            ending.append(asyncio.get_running_loop().create_task(server.end()))

    with small_server(goes_away) as server:
        result = run(server, gets(steady(0.2, 200.0), connections=2, patience_s=1.0))
    counts = result["get"].counts()
    assert set(counts) == {0, 200}
    assert counts[0] >= 25
    assert max(result["get"].took_s) < 1.0


def test_a_server_that_is_not_there_is_an_error() -> None:
    with pytest.raises(ConnectionRefusedError):
        uvloop.run(drive(free_port(), [gets(steady(0.1, 10.0))]))


def test_a_server_that_is_gone_is_a_result_to_whoever_wants_to_know() -> None:
    result = uvloop.run(drive(free_port(), [gets(steady(0.5, 20.0))], must_connect=False))
    assert result["get"].counts() == {0: 10}


@each(
    "answered", [b"nonsense\r\n\r\n", b"HTTP/1.1 200 OK\r\n\r\n", answer() + b"more", answer().replace(b"200", b"2x0")]
)
def test_what_is_not_an_answer_is_none(answered: bytes) -> None:
    with small_server(lambda request, transport: transport.write(answered)) as server:
        result = run(server, gets(steady(0.05, 100.0)))
    assert result["get"].counts() == {0: 5}


def test_answers_are_read_in_whatever_pieces_they_come() -> None:
    whole = answer("x" * 20, 201, "X-More: y")

    def in_pieces(request: bytes, transport: asyncio.Transport) -> None:
        pieces = sorted(random.sample(range(len(whole)), 5))
        for number, (begin, end) in enumerate(zip([0, *pieces], [*pieces, len(whole)], strict=True)):
            asyncio.get_running_loop().call_later(0.002 * number, transport.write, whole[begin:end])

    with small_server(in_pieces) as server:
        result = run(server, gets(steady(0.1, 100.0)))
    assert result["get"].counts() == {201: 10}


# Behaviours


def test_a_client_comes_back_after_its_delay_with_what_the_behaviour_said() -> None:
    told: list[tuple[int, int]] = []

    class Twice(FixedRequests):
        def answered(self, number: int, answer: Answer) -> Again | None:
            told.append((number, answer.status))
            assert (answer.body, answer.header(b"x-kind")) == (b'"A"', b"Tea")
            return Again(0.1, b"GET /again%d HTTP/1.1\r\n\r\n" % number) if len(told) <= 4 else None

    with small_server(lambda request, transport: transport.write(answer("A", 200, "X-Kind: Tea"))) as server:
        result = run(server, Stream("twice", Twice([GET]), steady(0.04, 100.0)))
    samples = result["twice"]
    assert told == [(number, 200) for number in (0, 1, 2, 3)] * 2
    assert (samples.client, samples.attempt) == ([0, 1, 2, 3] * 2, [0] * 4 + [1] * 4)
    assert [asked.request.split()[1] for asked in server.asked[4:]] == [b"/again%d" % number for number in range(4)]
    for first, second in zip(samples.rows()[:4], samples.rows()[4:], strict=True):
        assert second.due_s == pytest.approx(first.due_s + first.took_s + 0.1, abs=0.02)
        assert server.asked[4 + second.client].at_s - result.started_s >= second.due_s - 1e-5
    assert len(samples.by_client()) == 4
    assert all(took_s >= 0.1 for took_s in samples.by_client().took_s)


def test_a_behaviour_is_told_who_left_and_its_error_ends_the_run() -> None:
    class Fails(FixedRequests):
        def answered(self, number: int, answer: Answer) -> None:
            raise LookupError(str(answer))

    with small_server(keeps_silent) as server, pytest.raises(LookupError, match="status=-1"):
        run(server, Stream("fails", Fails([GET]), steady(60.0, 1.0), patience_s=0.05), gets(steady(60.0, 1.0)))


@each("returns", [True, False])
def test_a_login_that_was_given_a_ticket_comes_back_with_it_if_it_should(returns: bool) -> None:
    def gives_tickets(request: bytes, transport: asyncio.Transport) -> None:
        head, _, body = request.partition(b"\r\n\r\n")
        if b"Login-Ticket: " in head:
            assert b"\r\nLogin-Ticket: for-%b\r\n" % json.loads(body)["username"].encode() in head + b"\r\n"
            transport.write(answer())
        else:
            transport.write(answer({"ticket": f"for-{json.loads(body)['username']}"}, 503, "Retry-After: 1"))

    users = [("ann", "pass"), ("bob", 'pass "word"')]
    with small_server(gives_tickets) as server:
        result = run(server, Stream("login", (TicketLogins if returns else Logins)(users), steady(0.04, 100.0)))
    samples = result["login"]
    assert samples.counts() == ({200: 4, 503: 4} if returns else {503: 4})
    bodies = [json.loads(asked.request.partition(b"\r\n\r\n")[2]) for asked in server.asked[:4]]
    assert bodies == [{"username": name, "password": password} for name, password in users] * 2
    if returns:
        assert all(1.0 <= took_s < 1.5 for took_s in samples.by_client().took_s)


def test_a_login_gives_up_after_so_many_tickets() -> None:
    with small_server(lambda _, transport: transport.write(answer({"ticket": "t"}, 503, "Retry-After: 0"))) as server:
        result = run(server, Stream("login", TicketLogins([("ann", "pass")], most_returns=3), steady(0.1, 10.0)))
    assert result["login"].attempt == [0, 1, 2, 3]


def test_each_chain_refreshes_with_its_last_token_and_never_twice_at_once() -> None:
    good = {"a0", "b0", "c0"}

    def rotates(request: bytes, transport: asyncio.Transport) -> None:
        form = parse_qs(request.partition(b"\r\n\r\n")[2].decode())
        (token,) = form["refresh_token"]
        assert form["grant_type"] == ["refresh_token"]
        if token not in good or token == "c0":
            transport.write(answer({"error": "invalid_grant"}, 400))
            return
        good.remove(token)
        good.add(following := f"{token[0]}{int(token[1:]) + 1}")
        asyncio.get_running_loop().call_later(0.02, transport.write, answer({"refresh_token": following}))

    with small_server(rotates) as server:
        stream = Stream("refresh", RefreshChains(["a0", "b0", "c0"]), steady(0.1, 200.0), patience_s=2.0)
        result = run(server, stream)
    assert result["refresh"].counts() == {200: 19, 400: 1}
    assert sum(int(token[1:]) for token in good) == 19
    assert result["refresh"].took_s[-1] > 0.08  # two chains, each busy 20 ms, for one request every 5 ms
    assert result.streams["refresh"].queued > 10


def test_a_chain_goes_on_with_its_token_after_any_other_failure() -> None:
    chains = RefreshChains(["a"])
    first = chains.request(0)
    assert chains.request(1) is None
    for number, status in enumerate((503, 0, -1, 200)):
        chains.answered(number, Answer(status))
        chains.answered(99, Answer(0))
        assert chains.request(number + 1) == first
    chains.answered(4, Answer(401))
    assert chains.request(5) is None


def test_two_streams_of_one_name_are_refused() -> None:
    with pytest.raises(ValueError, match="one name"):
        uvloop.run(drive(free_port(), [gets(steady(0.1, 10.0))] * 2))


# Figures

SAMPLES = Samples(
    2.0,
    due_s=[0.0, 0.1, 0.6, 1.2, 1.6],
    took_s=[0.1, 0.3, 0.2, 0.5, 0.1],
    status=[200, 503, 204, 0, 200],
    attempt=[0, 0, 0, 1, 0],
    client=[0, 1, 2, 1, 3],
)


def test_figures_of_samples() -> None:
    assert SAMPLES.counts() == {0: 1, 200: 2, 204: 1, 503: 1}
    assert SAMPLES.goodput_per_second(deadline_s=1.0) == 1.5
    assert SAMPLES.goodput_per_second(deadline_s=0.15) == 1.0
    assert [SAMPLES.quantile_ms(part) for part in (0.0, 0.5, 1.0)] == [100, 200, 500]
    assert SAMPLES.answered().quantile_ms(1.0) == 300
    assert len(SAMPLES.between(0.1, 1.2)) == 2
    assert SAMPLES.between(0.5, 1.0).goodput_per_second(1.0) == 2.0
    assert SAMPLES.over_between(0.4, 1.7).counts() == {204: 1, 503: 1}


def test_samples_by_client_last_from_the_first_request_to_the_last_answer() -> None:
    row = SAMPLES.by_client().rows()[1]
    assert (row.client, row.due_s, row.status, row.attempt) == (1, 0.1, 0, 1)
    assert row.took_s == pytest.approx(1.6)


def test_a_series_has_every_bucket_also_an_empty_one() -> None:
    first, second, third, fourth = SAMPLES.series(500, deadline_s=0.25)
    assert first[:3] == (0.0, 2, 1)
    assert (second.at_s, second.requests, second.good, second.p99_ms) == (0.5, 1, 1, 200)
    assert (third.requests, third.good) == (1, 0)
    assert fourth.p50_ms == 100
    empty = Samples(1.0, [0.9], [0.1], [200], [0], [0]).series(300)
    assert [bucket.requests for bucket in empty] == [0, 0, 0, 1]
    assert Samples(1.0).series(100) == []


@each(
    ("took_s", "pairs", "overtaken"),
    [
        ([1.0, 1.5, 2.0], 3, 0),
        ([3.0, 1.5, 2.0], 3, 2),  # the first was there, and waited for both of the others
        ([0.2, 1.5, 2.0], 1, 0),  # it was served before they came
        ([1.1, 1.0, 0.9], 3, 0),  # about the same time is no order
    ],
)
def test_the_order_in_which_those_were_served_who_waited_together(
    took_s: list[float], pairs: int, overtaken: int
) -> None:
    samples = Samples(1.0, [0.0, 0.0, 0.0], took_s, [200] * 3, [0] * 3, [0, 1, 2])
    samples.due_s = [0.0, 0.1, 0.2]
    assert served_order(samples) == (pairs, overtaken)


def test_who_was_away_is_not_overtaken_and_has_its_place_when_it_is_back() -> None:
    # The first client is sent away, and is back while the second waits.
    def order(second_took_s: float) -> tuple[int, int]:
        status, clients = [503, 200, 200], [0, 1, 0]
        return served_order(Samples(2.0, [0.0, 0.1, 1.0], [0.1, second_took_s, 1.0], status, [0, 0, 1], clients))

    assert order(0.5) == (0, 0)
    assert order(1.5) == (1, 1)
    assert order(3.0) == (1, 0)


def test_joined_streams_are_in_the_order_of_time() -> None:
    other = Samples(1.0, [0.5], [0.2], [401], [0], [0])
    both = joined([SAMPLES, other])
    assert both.due_s == [0.0, 0.1, 0.5, 0.6, 1.2, 1.6]
    assert both.seconds == 2.0
