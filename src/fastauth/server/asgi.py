"""The ASGI shell: request and response, exact-match routing, and the limits every request meets first."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable, MutableMapping
from functools import partial
from typing import Any, Final, Protocol, TypeVar

from fastauth.domain.errors import FastauthError, Overloaded, Unavailable
from fastauth.endpoints.errors import (
    BadRequest,
    BodyAborted,
    BodyTimeout,
    BodyTooLarge,
    ClientLeft,
    MethodNotAllowed,
    PathNotFound,
)
from fastauth.endpoints.http import MAX_BODY_BYTES, Request, Response, new_trace
from fastauth.endpoints.openapi import Operation
from fastauth.endpoints.problems import oauth_response, problem_response
from fastauth.endpoints.waiting_page import waiting_page, wants_page
from fastauth.server.deadlines import BODY_TIMEOUT_S, HANDLER_TIMEOUT_S, Deadlines, HandlerDeadlines
from fastauth.server.telemetry import get_log, where

_now_s = time.perf_counter

T = TypeVar("T")
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

REFUSAL_LOG_S: Final = 1.0
NO_ROUTE: Final = "other"
# A process that is about to end asks its clients to: a request that meets the end of an idle connection is lost.
_CLOSE: Final = ((b"connection", b"close"),)
# A second one of these is an attack or a defect; two parties would each believe another (RFC 9110 section 5.3).
UNIQUE_HEADERS: Final = (
    b"host",
    b"authorization",
    b"content-type",
    b"content-length",
    b"content-encoding",
    b"transfer-encoding",
)

_HOST_CHARACTERS: Final = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~!$&'()*+,;=:%[]"
# Of all bodies that are being read at once; slow ones beyond it are refused, or they would fill the memory.
MAX_BODIES_BYTES: Final = 16 * 1024 * 1024

Handler = Callable[[Request], Response | Awaitable[Response]]


class Route:
    """One path. A handler that has nothing to wait for answers at once, without a coroutine.

    ``methods`` empty means any; ``is_subtree`` takes the paths below as well; the errors of one that ``is_oauth`` are
    written as RFC 6749 has them; ``operation`` is for ``/openapi.json``; requests are counted by the ``label``.
    """

    __slots__ = ("handle", "is_oauth", "is_subtree", "label", "methods", "operation", "path", "raw_path")

    def __init__(
        self,
        path: str,
        handle: Handler,
        methods: tuple[str, ...] = (),
        operation: Operation | None = None,
        *,
        is_subtree: bool = False,
        is_oauth: bool = False,
        label: str | None = None,
    ) -> None:
        self.path = path
        self.raw_path = path.encode()
        self.label = label or path
        self.handle: Callable[[Request], Any] = handle
        self.methods = (*methods, "HEAD") if "GET" in methods else methods
        self.operation = operation
        self.is_subtree = is_subtree
        self.is_oauth = is_oauth


class Router:
    """Finds the route of a path: one dictionary look-up, then the few subtrees."""

    def __init__(self, routes: list[Route]) -> None:
        self._exact = {route.path: route for route in routes}
        self._subtrees = [(route.path + "/", route) for route in routes if route.is_subtree]

    def is_oauth(self, path: str) -> bool:
        """Whether what goes wrong on this path is to be written as RFC 6749 has it."""
        route = self._exact.get(path)
        return route is not None and route.is_oauth

    def find(self, path: str, method: str) -> Route:
        """Raises PathNotFound or MethodNotAllowed."""
        route = self._exact.get(path)
        if route is None:
            route = next((below for prefix, below in self._subtrees if path.startswith(prefix)), None)
            if route is None:
                raise PathNotFound
        if route.methods and method not in route.methods:
            raise MethodNotAllowed(route.methods)
        return route


class Service(Protocol):
    """What the shell serves: a router, an end, and who is told of every request."""

    router: Router

    is_leaving: bool

    @property
    def count(self) -> Callable[[str, int, float], None]: ...

    async def close(self) -> None: ...


class Bodies:
    """The unfinished bodies of this process: how many bytes it holds of them, and until when each has to be there."""

    __slots__ = ("_held", "deadlines")

    def __init__(self) -> None:
        self._held = 0
        self.deadlines = Deadlines(BODY_TIMEOUT_S)

    def hold(self, size: int) -> None:
        """Raises Overloaded when all bodies together are too much; what was held is to be released all the same."""
        self._held += size
        if self._held > MAX_BODIES_BYTES:
            raise Overloaded(1)

    def release(self, size: int) -> None:
        """Give back what ``hold`` took."""
        self._held -= size


class AsgiRequest(Request):
    """A request whose body comes from ASGI."""

    __slots__ = ("_bodies", "_receive")

    def __init__(self, scope: Scope, path: str, receive: Receive, bodies: Bodies) -> None:
        """Raises BadRequest for a header that must be unique and is not, or for a missing Host."""
        pairs = scope["headers"]
        headers: dict[bytes, bytes] = dict(pairs)
        if len(headers) != len(pairs):
            headers = _join_lines(pairs)
        # granian hands on a missing Host as an empty one (RFC 9112 section 3.2: 400, as for an invalid one)
        host = headers.get(b"host")
        if not host:
            if scope["http_version"] == "1.1":
                raise BadRequest("the request has no Host header")
        elif host.translate(None, _HOST_CHARACTERS):
            raise BadRequest("the Host header is not a host")
        # hyper takes off one "chunked" and would leave any other coding in the body (RFC 9112 section 6.1)
        if b"transfer-encoding" in headers and headers[b"transfer-encoding"].lower() != b"chunked":
            raise BadRequest("the only transfer coding is chunked, once")
        client = scope.get("client")
        # As Request.__init__ does it: the call costs as much as everything in it.
        self.method = scope["method"]
        self.path = path
        self.headers = headers
        self.peer = client[0] if client else None
        self.query = scope.get("query_string", b"")
        self.answer_fields = ()
        self.on_body = None
        self._receive = receive
        self._bodies = bodies

    async def read_body(self) -> bytes:
        length = self.headers.get(b"content-length", b"0")
        if length.isdigit() and int(length[:20]) > MAX_BODY_BYTES:
            raise BodyTooLarge
        deadlines = self._bodies.deadlines
        task = deadlines.begin()
        chunks: list[bytes] = []
        size = 0
        try:
            while True:
                message = await self._receive()
                if message["type"] != "http.request":
                    raise BodyAborted
                chunk: bytes = message.get("body", b"")
                size += len(chunk)
                self._bodies.hold(len(chunk))
                if size > MAX_BODY_BYTES:
                    raise BodyTooLarge
                if not message.get("more_body", False):
                    if self.on_body is not None:
                        self.on_body()
                    return b"".join((*chunks, chunk)) if chunks else chunk
                chunks.append(chunk)
        except asyncio.CancelledError:
            if deadlines.was_missed(task):
                raise BodyTimeout from None
            raise
        finally:
            deadlines.end(task)
            self._bodies.release(size)

    async def unless_left(self, outcome: "asyncio.Future[T]") -> T:
        leaving = asyncio.get_running_loop().create_task(self._left())
        leaving.add_done_callback(lambda leaving: outcome.cancel() if _has_left(leaving) else None)
        try:
            return await outcome
        except asyncio.CancelledError:
            if _has_left(leaving):
                raise ClientLeft from None
            raise
        finally:
            leaving.cancel()

    async def while_connected(self, work: Coroutine[Any, Any, T]) -> T:
        loop = asyncio.get_running_loop()
        task, leaving = loop.create_task(work), loop.create_task(self._left())
        try:
            await asyncio.wait((task, leaving), return_when=asyncio.FIRST_COMPLETED)
            if not task.done():
                raise ClientLeft
            return task.result()
        finally:
            leaving.cancel()
            if not task.done():
                task.cancel()
                task.add_done_callback(_forget)

    async def _left(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass


def _has_left(leaving: "asyncio.Task[None]") -> bool:
    """Whether it says so, and was not cancelled or failed itself."""
    return leaving.done() and not leaving.cancelled() and leaving.exception() is None


def _forget(task: "asyncio.Task[Any]") -> None:
    """What became of it is nobody's business any more."""
    if not task.cancelled():
        task.exception()


def _join_lines(pairs: Iterable[tuple[bytes, bytes]]) -> dict[bytes, bytes]:
    """Headers of which some stand on several lines, as one value each (RFC 9110 section 5.3; RFC 9113 8.2.3)."""
    joined: dict[bytes, bytes] = {}
    for name, value in pairs:
        if name not in joined:
            joined[name] = value
        elif name in UNIQUE_HEADERS:
            raise BadRequest(f"the {name.decode().title()} header stands twice")
        else:
            joined[name] += (b"; " if name == b"cookie" else b", ") + value
    return joined


class AsgiApp:
    """The ASGI application. It starts with the lifespan event or, where a host sends none, with the first request."""

    def __init__(self, start: Callable[[], Awaitable[Service]], handler_timeout_s: float = HANDLER_TIMEOUT_S) -> None:
        self._start = start
        self._deadlines = HandlerDeadlines(handler_timeout_s)
        self._bodies = Bodies()
        self._errors = ErrorAnswers()
        self._starting = asyncio.Lock()
        self._service: Service | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._serve_other(scope, receive, send)
            return
        began = _now_s()
        path: str = scope["path"]
        label = NO_ROUTE
        if root := scope.get("root_path"):  # mounted below another application
            path = path.removeprefix(root)
        request: Request | None = None
        running = self._service
        try:
            running = running or await self._started_late()
            request = AsgiRequest(scope, path, receive, self._bodies)
            route = running.router.find(path, request.method)
            label = route.label
            # One spelling of a path: a proxy that limits /auth does not see it in /%61uth.
            sent = scope.get("raw_path")
            if sent and sent != route.raw_path and not route.is_subtree and not sent.endswith(path.encode()):
                raise PathNotFound
            answer = route.handle(request)
            response: Response = answer if type(answer) is Response else await self._deadlines.keep(answer)
        except FastauthError as error:
            response = self._errors.answer(error, path, self._is_oauth(path), partial(_id_of, request, scope))
            if isinstance(error, Overloaded) and request is not None and wants_page(request):
                response = waiting_page(error, request)
        except Exception as error:  # noqa: BLE001 - the last line of defence: a generic 500, and the worker lives
            response = self._errors.answer_defect(error, path, self._is_oauth(path), partial(_id_of, request, scope))
        status, headers = response.status, response.headers
        if request is not None and request.answer_fields:
            headers += request.answer_fields
        if running is not None and running.is_leaving:
            headers += _CLOSE
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else response.body})
        if running is not None:
            running.count(label, status, _now_s() - began)

    async def _serve_other(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._serve_lifespan(receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1000})

    def _is_oauth(self, path: str) -> bool:
        return self._service is not None and self._service.router.is_oauth(path)

    async def _started_late(self) -> Service:
        """The host sent no lifespan event, so the first request starts the service; the next one tries again."""
        try:
            return await self._started()
        except FastauthError as error:
            raise Unavailable("fastauth", str(error)) from error

    async def _started(self) -> Service:
        async with self._starting:
            if self._service is None:
                self._service = await self._start()
            return self._service

    async def _serve_lifespan(self, receive: Receive, send: Send) -> None:
        while True:
            message = await receive()
            if message["type"] == "lifespan.startup":
                try:
                    await self._started()
                except Exception as error:  # noqa: BLE001 - whatever it is, the server must not go on without a start
                    reason = str(error) if isinstance(error, FastauthError) else type(error).__name__
                    get_log().error("start_failed", reason=reason, where=where(error))
                    await send({"type": "lifespan.startup.failed", "message": reason})
                    return
                await send({"type": "lifespan.startup.complete"})
            elif message["type"] == "lifespan.shutdown":
                if self._service is not None:
                    await self._service.close()
                await send({"type": "lifespan.shutdown.complete"})
                return


def _id_of(request: Request | None, scope: Scope) -> str:
    """The id of a request, also of one that could not be made into a ``Request``."""
    if request is not None:
        return request.id
    found = [value for name, value in scope["headers"] if name == b"traceparent"]
    return new_trace(found[0] if len(found) == 1 else None).trace_id


class ErrorAnswers:
    """What an exception is answered with, and which of them leave a line in the log."""

    def __init__(self) -> None:
        self._told: dict[str, float] = {}

    def answer(self, error: FastauthError, path: str, is_oauth: bool, request_id: Callable[[], str]) -> Response:
        """An error that fastauth raised on purpose. In: ``request_id`` finds the id, which is not always needed."""
        if isinstance(error, Unavailable):
            self._tell(error.dependency, "unavailable", request_id, dependency=error.dependency, reason=str(error))
        elif isinstance(error, Overloaded):
            self._tell("", "overloaded", request_id, path=path, retry_after_s=error.retry_after_s)
        response = oauth_response(error) if is_oauth else problem_response(error)
        if response.status != 500:
            return response
        return self.answer_defect(error.__cause__ or error, path, is_oauth, request_id, error)

    def answer_defect(
        self,
        error: BaseException,
        path: str,
        is_oauth: bool,
        request_id: Callable[[], str],
        answered: FastauthError | None = None,
    ) -> Response:
        """An error that nobody expected: the answer has an id that finds it in the log, and nothing else."""
        found = request_id()
        get_log().error("request_failed", request_id=found, path=path, error=type(error).__name__, where=where(error))
        write = oauth_response if is_oauth else problem_response
        return write(answered or FastauthError(), found)

    def _tell(self, key: str, event: str, request_id: Callable[[], str], **values: object) -> None:
        now = time.monotonic()  # a line a second says as much as a thousand
        if now - self._told.get(key, -REFUSAL_LOG_S) >= REFUSAL_LOG_S:
            self._told[key] = now
            get_log().error(event, request_id=request_id(), **values)
