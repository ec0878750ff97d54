"""The ASGI shell: routing, the limits that every request meets first, and what becomes of errors."""

import asyncio
import contextlib
import json
import re
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import pytest

from fastauth.domain.errors import Conflict, IssueFailed, Overloaded, Unavailable
from fastauth.endpoints.errors import MalformedBody
from fastauth.endpoints.http import MAX_BODY_BYTES, Request, Response
from fastauth.server.asgi import MAX_BODIES_BYTES, UNIQUE_HEADERS, AsgiApp, Route
from fastauth.server.deadlines import BODY_TIMEOUT_S
from fastauth.server.storage import StartRefused
from tests.cases import each
from tests.server.asking import (
    DISCONNECT,
    HOST,
    Answer,
    Body,
    Message,
    StartedService,
    app_with,
    ask,
    body_of,
    lifespan,
    run,
)


def hello(request: Request) -> Response:
    return Response(200, ((b"x-path", request.path.encode()),), b"hello")


class Echo:
    """Answers with the body, and keeps every body that it was given whole."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []

    async def __call__(self, request: Request) -> Response:
        body = await request.read_body()
        self.bodies.append(body)
        return Response(200, (), body)


def raising(error: BaseException) -> Route:
    def handle(_request: Request) -> Response:
        raise error

    return Route("/raise", handle)


ROUTES = (
    Route("/get", hello, ("GET",)),
    Route("/post", hello, ("POST",)),
    Route("/any", hello),
    Route("/tree", hello, is_subtree=True),
)


def answer_to(path: str, method: str = "GET", **more: Any) -> Answer:
    return run(ask(app_with(*ROUTES), path, method, **more))


# ------------------------------------------------------------------ routing


@each(
    ("method", "path"),
    [
        ("GET", "/get"),
        ("POST", "/post"),
        ("GET", "/any"),
        ("BREW", "/any"),
        ("PUT", "/tree"),
        ("GET", "/tree/a/b"),
        ("GET", "/tree/"),
    ],
)
def test_a_path_finds_its_route(method: str, path: str) -> None:
    answer = answer_to(path, method)
    assert (answer.status, answer.body, answer.header("x-path")) == (200, b"hello", path)
    assert answer.header("content-length") == "5"


@each(
    "path",
    ["/", "", "/get/", "/GET", "/get/x", "//get", "/treex", "/tre", "tree", "/any/below", "/get\0", "/gét", "/%67et"],
)
def test_any_other_path_is_a_404_problem(path: str) -> None:
    answer = answer_to(path)
    assert answer.status == 404
    assert answer.header("content-type") == "application/problem+json"
    assert answer.json["code"] == "path_not_found"


@each(
    ("method", "path", "allowed"),
    [
        ("POST", "/get", "GET, HEAD"),
        ("GET", "/post", "POST"),
        ("HEAD", "/post", "POST"),
        ("OPTIONS", "/get", "GET, HEAD"),
        ("get", "/get", "GET, HEAD"),
    ],
)
def test_another_method_is_a_405_that_names_the_right_ones(method: str, path: str, allowed: str) -> None:
    answer = answer_to(path, method)
    assert answer.status == 405
    assert answer.header("allow") == allowed


@each("path", ["/get", "/any", "/nowhere"])
def test_a_head_request_gets_the_headers_of_a_get_and_no_body(path: str) -> None:
    get, head = answer_to(path), answer_to(path, "HEAD")
    assert (head.status, head.headers, head.body) == (get.status, get.headers, b"")
    assert get.body


def test_a_mounted_application_sees_its_paths_without_the_prefix() -> None:
    assert answer_to("/auth/get", root_path="/auth").header("x-path") == "/get"
    assert answer_to("/get", root_path="/auth").status == 200  # a host that has cut the prefix off itself
    assert answer_to("/auth", root_path="/auth").status == 404
    assert answer_to("/auth/get", root_path="").status == 404


# ------------------------------------------------------------------ headers


@each("name", UNIQUE_HEADERS)
def test_a_header_that_must_be_unique_and_stands_twice_is_a_400(name: bytes) -> None:
    for values in ((b"a", b"a"), (b"a", b"b"), (b"", b"a"), (b"a", b"b", b"c")):
        headers = (*((name, value) for value in values), *(() if name == b"host" else (HOST,)))
        answer = answer_to("/get", headers=headers)
        assert answer.status == 400
        assert answer.json["code"] == "bad_request"


def test_the_headers_on_which_two_parties_could_disagree_must_be_unique() -> None:
    assert {b"host", b"authorization", b"content-type", b"content-length", b"transfer-encoding"} <= set(UNIQUE_HEADERS)


def test_other_headers_may_stand_as_often_as_they_like() -> None:
    answer = answer_to(
        "/get", headers=(HOST, (b"accept", b"a"), (b"accept", b"b"), (b"cookie", b"a"), (b"cookie", b"b"))
    )
    assert answer.status == 200


@each("headers", [(), ((b"host", b""),), ((b"accept", b"*/*"),)])
def test_http_1_1_without_a_host_is_a_400_and_http_1_0_needs_none(headers: tuple[tuple[bytes, bytes], ...]) -> None:
    assert answer_to("/get", headers=headers).status == 400
    assert answer_to("/get", headers=headers, http_version="1.0").status == 200


@each("host", [b"a b", b"a/b", b"a\r\nb", b"a\x00", "é".encode(), b"<a>", b"a@b", b'"a"', b"a\\b", b"a?b", b"a#b"])
def test_a_host_that_is_none_is_a_400(host: bytes) -> None:
    answer = answer_to("/get", headers=((b"host", host),))
    assert (answer.status, answer.json["code"]) == (400, "bad_request")


@each("host", [b"auth.example", b"Auth.EXAMPLE:8000", b"127.0.0.1", b"[::1]:8000", b"_x-y.z", b"%C3%A9.example"])
def test_a_host_that_is_one_is_taken(host: bytes) -> None:
    assert answer_to("/get", headers=((b"host", host),)).status == 200


@each(
    ("path", "raw_path", "status"),
    [("/get", b"/%67et", 404), ("/any", b"/an%79", 404), ("/tree/a b", b"/tree/a%20b", 200)],
)
def test_a_fixed_path_has_one_spelling(path: str, raw_path: bytes, status: int) -> None:
    """A proxy that limits ``/auth`` by its path does not see it in ``/%61uth``."""
    assert answer_to(path, raw_path=raw_path).status == status


def test_a_prefix_that_has_to_be_encoded_is_no_other_spelling_of_the_path() -> None:
    assert answer_to("/my app/get", root_path="/my app", raw_path=b"/my%20app/get").status == 200
    assert answer_to("/my app/get", root_path="/my app", raw_path=b"/my%20app/%67et").status == 404


def test_a_host_application_that_does_not_know_the_raw_path_is_served_all_the_same() -> None:
    """In ASGI it is optional, and None where it is not known."""
    assert answer_to("/get", raw_path=None).status == 200


@each("coding", [b"gzip", b"gzip, chunked", b"chunked, chunked", b"identity", b"", b"x"])
def test_a_transfer_coding_that_would_stay_in_the_body_is_a_400(coding: bytes) -> None:
    assert answer_to("/get", headers=(HOST, (b"transfer-encoding", coding))).status == 400


@each("coding", [b"chunked", b"Chunked"])
def test_a_chunked_body_is_taken(coding: bytes) -> None:
    assert answer_to("/get", headers=(HOST, (b"transfer-encoding", coding))).status == 200


# ------------------------------------------------------------------ bodies


def echo_of(receive: Body, *headers: tuple[bytes, bytes]) -> tuple[Answer, list[bytes]]:
    echo = Echo()
    answer = run(ask(app_with(Route("/echo", echo)), "/echo", "POST", (HOST, *headers), receive))
    return answer, echo.bodies


@each(
    "chunks",
    [(b"",), (b"abc",), (b"a", b"", b"bc"), (b"", b"abc"), (b"abc", b""), (b"x" * MAX_BODY_BYTES,), (b"x",) * 5000],
)
def test_a_body_is_read_whole_however_it_is_cut(chunks: tuple[bytes, ...]) -> None:
    answer, bodies = echo_of(body_of(*chunks))
    assert (answer.status, bodies) == (200, [b"".join(chunks)])


def test_a_message_without_a_body_member_is_an_empty_one() -> None:
    assert echo_of(Body({"type": "http.request"}))[1] == [b""]


@each("length", [MAX_BODY_BYTES + 1, 10**9, 10**30, 10**4000])
def test_a_body_that_is_declared_too_large_is_refused_before_any_of_it_is_read(length: int) -> None:
    receive = body_of(b"x")
    digits = b"1" + b"0" * 4000 if length == 10**4000 else b"%d" % length
    answer, bodies = echo_of(receive, (b"content-length", digits))
    assert (answer.status, bodies, receive.received) == (413, [], 0)
    assert answer.header("connection") == "close"


@each("length", [b"0", b"3", b"65536", b"00000000000000000000000000003"])
def test_a_length_within_the_bound_is_believed_only_as_far_as_the_body_goes(length: bytes) -> None:
    assert echo_of(body_of(b"abc"), (b"content-length", length))[1] == [b"abc"]


@each("length", [b"", b"x", b"-1", b"+3", b"1e9", b"3, 3", "３".encode()])
def test_a_length_that_is_no_number_is_the_servers_business_and_never_a_500(length: bytes) -> None:
    assert echo_of(body_of(b"abc"), (b"content-length", length))[0].status in {200, 400}


def test_a_body_that_turns_out_too_large_is_refused_as_soon_as_it_is() -> None:
    receive = body_of(*[b"x" * 1024] * 100)
    answer, bodies = echo_of(receive)
    assert (answer.status, bodies) == (413, [])
    assert receive.received == 65
    assert answer.header("connection") == "close"


def test_one_byte_beyond_the_bound_is_too_much() -> None:
    for chunks in ((b"x" * (MAX_BODY_BYTES + 1),), (b"x" * MAX_BODY_BYTES, b"x")):
        answer, bodies = echo_of(body_of(*chunks))
        assert (answer.status, bodies) == (413, [])


def test_a_client_that_leaves_in_the_middle_leaves_no_trace() -> None:
    for before in ((), ({"type": "http.request", "body": b'{"a"', "more_body": True},)):
        answer, bodies = echo_of(Body(*before, DISCONNECT))
        assert (answer.status, bodies) == (400, [])
        assert answer.json["code"] == "body_aborted"


def test_slow_bodies_are_refused_before_they_fill_the_memory_and_room_comes_back(
    capsysbinary: pytest.CaptureFixture[bytes],
) -> None:
    echo = Echo()
    app = app_with(Route("/echo", echo))
    chunk = b"x" * (MAX_BODY_BYTES - 1)
    most = MAX_BODIES_BYTES // len(chunk)

    async def work() -> None:
        go_on = asyncio.Event()

        def slow(last: Message) -> Any:
            first: list[Message] = [{"type": "http.request", "body": chunk, "more_body": True}]

            async def receive() -> Message:
                if first:
                    return first.pop()
                await go_on.wait()
                return last

            return receive

        endings: list[Message] = [{"type": "http.request", "body": b"x"}, DISCONNECT]
        waiting = [
            asyncio.ensure_future(ask(app, "/echo", "POST", receive=slow(endings[number % 2])))
            for number in range(most)
        ]
        for _ in range(3):
            await asyncio.sleep(0)
        refused = await ask(app, "/echo", "POST", receive=slow(endings[0]))
        assert (refused.status, refused.header("retry-after")) == (503, "1")
        assert not any(task.done() for task in waiting)
        go_on.set()
        answers = await asyncio.gather(*waiting)
        assert [answer.status for answer in answers[:2]] == [200, 400]
        assert (await ask(app, "/echo", "POST", receive=body_of(chunk))).status == 200

    run(work())
    assert len(echo.bodies) == (most + 1) // 2 + 1
    assert capsysbinary.readouterr().err.count(b'"event":"overloaded"') == 1


class SteeredLoop(asyncio.SelectorEventLoop):
    """An event loop that a test can put ahead in time."""

    ahead_s = 0.0

    def time(self) -> float:
        return super().time() + self.ahead_s


@each(("late_s", "status"), [(BODY_TIMEOUT_S - 0.5, 200), (BODY_TIMEOUT_S + 0.01, 408)])
@each("first", [b"", b"the beginning"])
def test_a_body_that_does_not_arrive_in_time_is_given_up(late_s: float, status: int, first: bytes) -> None:
    echo = Echo()

    async def work() -> Answer:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, SteeredLoop)
        messages: list[Message] = [{"type": "http.request", "body": first, "more_body": True}]

        async def receive() -> Message:
            if messages:
                return messages.pop()
            loop.ahead_s += late_s
            for _ in range(3):  # turns of the loop, in which a timer that is due goes off
                await asyncio.sleep(0)
            return {"type": "http.request", "body": b"the end"}

        return await ask(app_with(Route("/echo", echo)), "/echo", "POST", receive=receive)

    with asyncio.Runner(loop_factory=SteeredLoop) as runner:
        answer = runner.run(work())
    assert answer.status == status
    assert echo.bodies == ([first + b"the end"] if status == 200 else [])


# ------------------------------------------------------------------ errors


def test_an_unexpected_error_is_a_generic_500_whose_id_finds_it_in_the_log(
    capsysbinary: pytest.CaptureFixture[bytes],
) -> None:
    app = app_with(raising(LookupError("s3cr3t\r\nforged")), *ROUTES)

    async def work() -> tuple[Answer, Answer]:
        return await ask(app, "/raise"), await ask(app, "/get")

    answer, next_answer = run(work())
    assert answer.status == 500
    assert answer.json["code"] == "internal_error"
    request_id = answer.header("x-request-id")
    assert answer.json["request_id"] == request_id
    assert next_answer.status == 200
    (line,) = capsysbinary.readouterr().err.splitlines()
    event = json.loads(line)
    assert (event["event"], event["request_id"], event["path"]) == ("request_failed", request_id, "/raise")
    assert event["error"] == "LookupError"
    assert any("test_asgi.py" in place for place in event["where"])
    assert b"s3cr3t" not in line
    assert b"s3cr3t" not in answer.body


@pytest.mark.parametrize("is_request", [True, False], ids=["a handler", "no host"])
def test_the_id_is_the_trace_of_a_good_traceparent(
    is_request: bool, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    """Also where something fails before there is a request: here a start."""
    trace = "0af7651916cd43dd8448eb211c80319c"
    field = (b"traceparent", f"00-{trace}-b7ad6b7169203331-00".encode())
    app = app_with(raising(LookupError()))
    if not is_request:

        async def start() -> StartedService:
            raise Unavailable("database", "it is away")

        app = AsgiApp(start)
    answer = run(ask(app, "/raise", headers=(HOST, field)))
    assert answer.header("x-request-id") == (trace if is_request else None)
    assert json.loads(capsysbinary.readouterr().err)["request_id"] == trace


@pytest.mark.parametrize(
    "fields",
    [
        [b"00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01"],
        [b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"] * 2,
        [b'x\x1b[31m"}\n{"event":"forged'],
        [],
    ],
    ids=["malformed", "two", "hostile", "none"],
)
def test_otherwise_the_id_is_one_of_our_own(fields: list[bytes], capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    headers = (HOST, *((b"traceparent", field) for field in fields))
    request_id = run(ask(app_with(raising(LookupError())), "/raise", headers=headers)).header("x-request-id")
    assert request_id is not None
    assert re.fullmatch("[0-9a-f]{32}", request_id)
    assert request_id != "0af7651916cd43dd8448eb211c80319c"
    assert json.loads(capsysbinary.readouterr().err)["request_id"] == request_id


def test_a_full_disk_under_the_log_fails_no_request(monkeypatch: pytest.MonkeyPatch) -> None:
    with Path("/dev/full").open("w") as full:
        monkeypatch.setattr("sys.stderr", full)
        answer = run(ask(app_with(raising(LookupError()), *ROUTES), "/raise"))
        monkeypatch.undo()
        with contextlib.suppress(OSError):
            full.close()
    assert answer.status == 500


def test_two_failures_have_two_ids(capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    app = app_with(raising(LookupError()))
    ids = {run(ask(app, "/raise")).json["request_id"] for _ in range(2)}
    assert {json.loads(line)["request_id"] for line in capsysbinary.readouterr().err.splitlines()} == ids
    assert len(ids) == 2


def test_a_token_that_could_not_be_made_is_logged_with_its_cause(capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    error = IssueFailed("no token could be made")
    error.__cause__ = OSError("s3cr3t")
    answer = run(ask(app_with(raising(error)), "/raise"))
    assert (answer.status, answer.json["code"]) == (500, "issue_failed")
    log = capsysbinary.readouterr().err
    event = json.loads(log)
    assert (event["error"], event["request_id"]) == ("OSError", answer.json["request_id"])
    assert b"s3cr3t" not in log


def test_an_error_that_should_never_meet_a_request_is_a_defect(capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    answer = run(ask(app_with(raising(Conflict("s3cr3t"))), "/raise"))
    assert (answer.status, answer.json["code"]) == (500, "internal_error")
    log = capsysbinary.readouterr().err
    assert json.loads(log)["error"] == "Conflict"
    assert b"s3cr3t" not in log + answer.body


@pytest.mark.parametrize(
    ("error", "status"),
    [(MalformedBody("what is wrong"), 400), (Overloaded(3), 503), (Unavailable("database", "locked"), 503)],
)
def test_an_error_that_was_foreseen_has_its_own_answer_and_no_id(
    error: Exception, status: int, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    answer = run(ask(app_with(raising(error)), "/raise"))
    assert answer.status == status
    assert answer.header("x-request-id") is None
    capsysbinary.readouterr()


def test_a_dependency_that_is_away_is_logged_once_and_not_with_every_request(
    capsysbinary: pytest.CaptureFixture[bytes],
) -> None:
    app = app_with(raising(Unavailable("database", "locked")))

    async def work() -> set[int]:
        return {(await ask(app, "/raise")).status for _ in range(50)}

    assert run(work()) == {503}
    lines = capsysbinary.readouterr().err.splitlines()
    assert 1 <= len(lines) <= 3  # one a second
    assert json.loads(lines[0])["dependency"] == "database"


def test_a_request_that_is_cancelled_is_not_answered() -> None:
    async def work() -> None:
        never = asyncio.Event()

        async def receive() -> Message:
            await never.wait()
            raise AssertionError

        task = asyncio.ensure_future(ask(app_with(Route("/echo", Echo())), "/echo", "POST", receive=receive))
        for _ in range(3):
            await asyncio.sleep(0)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        assert task.cancelled()

    run(work())


# ------------------------------------------------------------------ start and end


class Starting:
    """Counts its starts; fails as often as it is told to."""

    def __init__(self, *errors: BaseException) -> None:
        self.errors = list(errors)
        self.starts = 0
        self.service = StartedService(*ROUTES)

    async def __call__(self) -> StartedService:
        self.starts += 1
        await asyncio.sleep(0)
        if self.errors:
            raise self.errors.pop(0)
        return self.service


def test_the_lifespan_starts_and_closes() -> None:
    starting = Starting()
    app = AsgiApp(starting)
    sent = run(lifespan(app, "lifespan.startup", "lifespan.shutdown"))
    assert [message["type"] for message in sent] == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
    assert (starting.starts, starting.service.is_closed) == (1, True)


def test_a_start_that_is_refused_says_why(capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    sent = run(lifespan(AsgiApp(Starting(StartRefused("name another directory"))), "lifespan.startup"))
    assert sent == [{"type": "lifespan.startup.failed", "message": "name another directory"}]
    assert json.loads(capsysbinary.readouterr().err)["event"] == "start_failed"


def test_a_start_that_fails_unexpectedly_says_what_without_its_text(capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    sent = run(lifespan(AsgiApp(Starting(OSError("s3cr3t"))), "lifespan.startup"))
    assert sent == [{"type": "lifespan.startup.failed", "message": "OSError"}]
    assert b"s3cr3t" not in capsysbinary.readouterr().err


def test_without_a_lifespan_the_first_requests_start_the_service_once() -> None:
    starting = Starting()
    app = AsgiApp(starting)

    async def work() -> list[Answer]:
        return await asyncio.gather(*(ask(app, "/get") for _ in range(5)))

    assert [answer.status for answer in run(work())] == [200] * 5
    assert starting.starts == 1


@pytest.mark.parametrize(
    ("error", "status"), [(StartRefused("s3cr3t"), 503), (OSError("s3cr3t"), 500)], ids=["refused", "unexpected"]
)
def test_without_a_lifespan_a_failed_start_fails_the_request_and_the_next_one_tries_again(
    error: Exception, status: int, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    app = AsgiApp(Starting(error))

    async def work() -> list[Answer]:
        return [await ask(app, "/get") for _ in range(2)]

    failed, served = run(work())
    assert (failed.status, served.status) == (status, 200)
    assert b"s3cr3t" not in failed.body
    (event,) = [json.loads(line) for line in capsysbinary.readouterr().err.splitlines()]
    assert event["level"] == "error"


def test_a_service_that_never_started_need_not_be_closed() -> None:
    starting = Starting()
    sent = run(lifespan(AsgiApp(starting), "lifespan.shutdown"))
    assert [message["type"] for message in sent] == ["lifespan.shutdown.complete"]
    assert starting.starts == 0


def sent_to(app: AsgiApp, scope: Message) -> list[Message]:
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    work: Coroutine[Any, Any, None] = app(scope, Body(), send)
    run(work)
    return sent


def test_a_websocket_is_closed() -> None:
    assert [message["type"] for message in sent_to(app_with(), {"type": "websocket"})] == ["websocket.close"]


# ------------------------------------------------------------------ what the service hears of each request


def test_every_request_is_counted_by_its_route_and_status() -> None:
    async def refuse(_request: Request) -> Response:
        raise Overloaded(1)

    async def work() -> list[tuple[str, int]]:
        service = StartedService(Route("/hello", hello), Route("/full", refuse, label="a label"))

        async def start() -> StartedService:
            return service

        app = AsgiApp(start)
        for path in ("/hello", "/full", "/nowhere"):
            await ask(app, path)
        await ask(app, "/hello", headers=())  # no Host
        return service.counted

    assert run(work()) == [("/hello", 200), ("a label", 503), ("other", 404), ("other", 400)]


def test_one_that_is_about_to_end_asks_its_clients_to_close_their_connections() -> None:
    async def work() -> list[Answer]:
        service = StartedService(Route("/hello", hello))

        async def start() -> StartedService:
            return service

        app = AsgiApp(start)
        answers = [await ask(app, "/hello")]
        service.is_leaving = True
        return [*answers, await ask(app, "/hello"), await ask(app, "/nowhere")]

    before, after, error = run(work())
    assert b"connection" not in dict(before.headers)
    assert dict(after.headers)[b"connection"] == dict(error.headers)[b"connection"] == b"close"
