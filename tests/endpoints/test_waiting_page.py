"""The page on which a person waits: it runs what its policy names, and has the ticket nowhere but in a cookie."""

import base64
import re
from hashlib import sha256
from html.parser import HTMLParser

from fastauth.domain.errors import Overloaded, Unavailable
from fastauth.domain.tickets import Ticket, Tickets
from fastauth.domain.waiting_line import RETURN_WINDOW_S
from fastauth.endpoints.http import Request, Response
from fastauth.endpoints.login_queue import presented_ticket
from fastauth.endpoints.waiting_page import waiting_page, wants_page
from fastauth.server.asgi import Route
from tests.cases import each
from tests.endpoints.asking import ReadyRequest, header_of
from tests.server.asking import HOST, Answer, app_with, ask, body_of, run

TICKET = Tickets(bytes(32)).issue(Ticket(1_800_000_000_000_000, 1_800_000_000), "alice", "192.0.2.0/24")
BROWSER = b"text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8"


def asking(accept: bytes | None = BROWSER, method: str = "POST") -> ReadyRequest:
    return ReadyRequest(b"", {} if accept is None else {b"accept": accept}, method, "/auth")


def page(ticket: str | None = TICKET, retry_after_s: int = 37, method: str = "POST") -> Response:
    return waiting_page(Overloaded(retry_after_s, ticket), asking(method=method))


class Parts(HTMLParser):
    """The elements of a page, with the text right inside scripts and styles."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.inline: list[tuple[str, str]] = []
        self._inside = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._inside = tag

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside in ("script", "style"):
            self.inline.append((self._inside, data))


def directives(response: Response) -> dict[str, list[str]]:
    policy = header_of(response, "content-security-policy")
    assert policy is not None
    return {name: sources for name, *sources in (directive.split() for directive in policy.split(";"))}


def hash_source(text: str) -> str:
    return f"'sha256-{base64.b64encode(sha256(text.encode()).digest()).decode()}'"


# ------------------------------------------------------------------ for whom


@each("accept", [BROWSER, b"text/html", b"application/json;q=0.5, text/html;q=0.9"])
def test_who_asks_for_html_by_name_gets_the_page(accept: bytes) -> None:
    assert wants_page(asking(accept))


@each("accept", [None, b"", b"*/*", b"application/json", b"text/*", b"application/xhtml+xml", b"text/plain"])
def test_programs_do_not(accept: bytes | None) -> None:
    assert not wants_page(asking(accept))


# ------------------------------------------------------------------ what it may run


def test_the_policy_names_the_one_script_and_the_one_style_by_their_hashes_and_nothing_else() -> None:
    response = page()
    found = Parts(response.body.decode()).inline
    assert [tag for tag, _ in found] == ["style", "script"]
    inline, policy = dict(found), directives(response)
    assert policy["default-src"] == ["'none'"]
    assert policy["script-src"] == [hash_source(inline["script"])]
    assert policy["style-src"] == [hash_source(inline["style"])]
    assert policy["base-uri"] == policy["frame-ancestors"] == ["'none'"]
    assert "unsafe" not in str(policy)


@each("retry_after_s", [1, 59, 60, 300])
def test_the_hashes_are_those_of_any_page_however_long_one_waits(retry_after_s: int) -> None:
    response = page(retry_after_s=retry_after_s)
    inline = dict(Parts(response.body.decode()).inline)
    assert directives(response)["script-src"] == [hash_source(inline["script"])]
    assert directives(response)["style-src"] == [hash_source(inline["style"])]


def test_nothing_in_it_needs_more_than_the_policy_allows() -> None:
    """No handler and no style in an attribute, and nothing that is loaded from anywhere."""
    for tag, attributes in Parts(page().body.decode()).elements:
        assert tag not in {"img", "iframe", "object", "embed", "link", "base", "form", "a"}
        for name, value in attributes.items():
            assert not name.startswith("on")
            assert name not in {"style", "src", "href", "srcset", "action", "http-equiv"}
            assert "javascript:" not in (value or "")


def test_it_is_not_kept_not_sniffed_and_tells_nobody_where_one_comes_from() -> None:
    response = page()
    assert response.status == 503
    assert header_of(response, "content-type") == "text/html; charset=utf-8"
    assert header_of(response, "cache-control") == "no-store"
    assert header_of(response, "x-content-type-options") == "nosniff"
    assert header_of(response, "referrer-policy") == "no-referrer"
    assert header_of(response, "vary") == "accept"


# ------------------------------------------------------------------ when to try again


@each("retry_after_s", [1, 37, 300])
def test_it_says_when_to_try_again_wherever_it_does(retry_after_s: int) -> None:
    response = page(retry_after_s=retry_after_s)
    assert header_of(response, "retry-after") == str(retry_after_s)
    text = response.body.decode()
    main = next(attributes for tag, attributes in Parts(text).elements if tag == "main")
    assert main["data-seconds"] == str(retry_after_s)
    assert f"reload this page in {retry_after_s} seconds" in text
    assert "SECONDS" not in text


# ------------------------------------------------------------------ the ticket


def test_the_ticket_goes_along_as_a_cookie_that_no_script_sees_and_nowhere_into_the_page() -> None:
    response = page(retry_after_s=37)
    cookie = header_of(response, "set-cookie")
    assert cookie is not None
    pair, *attributes = cookie.split("; ")
    assert pair == f"__Host-fastauth-ticket={TICKET}"
    assert set(attributes) == {"Path=/", "Secure", "HttpOnly", "SameSite=Lax", f"Max-Age={37 + RETURN_WINDOW_S}"}
    assert TICKET.encode() not in response.body
    assert TICKET[2:].encode() not in response.body
    assert [name for name, value in response.headers if TICKET.encode() in value] == [b"set-cookie"]


def test_what_a_browser_sends_of_that_cookie_is_the_ticket() -> None:
    cookie = header_of(page(), "set-cookie")
    assert cookie is not None
    pair = re.split("; *", cookie)[0].encode()
    assert presented_ticket(ReadyRequest(b"", {b"cookie": b"a=b; " + pair}, "POST", "/auth")) == TICKET.encode()


def test_without_a_ticket_there_is_no_cookie() -> None:
    assert header_of(page(ticket=None), "set-cookie") is None


# ------------------------------------------------------------------ over HTTP


def overloaded(_request: Request) -> Response:
    raise Overloaded(37, TICKET)


def answer(method: str, *headers: tuple[bytes, bytes]) -> Answer:
    return run(ask(app_with(Route("/auth", overloaded)), "/auth", method, (HOST, *headers), body_of(b"")))


def test_a_browser_gets_the_page_and_a_program_the_problem() -> None:
    shown = answer("POST", (b"accept", BROWSER))
    assert (shown.status, shown.header("content-type")) == (503, "text/html; charset=utf-8")
    assert shown.body.startswith(b"<!doctype html>")
    assert shown.header("content-length") == str(len(shown.body))
    for headers in ((), ((b"accept", b"application/json"),)):
        told = answer("POST", *headers)
        assert (told.status, told.json["ticket"], told.header("retry-after")) == (503, TICKET, "37")
        assert told.header("set-cookie") is None


def test_what_asks_for_the_head_alone_gets_no_body_and_otherwise_the_same() -> None:
    whole, head = (answer(method, (b"accept", BROWSER)) for method in ("GET", "HEAD"))
    assert whole.body
    assert (head.status, head.body) == (503, b"")
    assert [pair for pair in head.headers if pair[0] != b"content-length"] == [
        pair for pair in whole.headers if pair[0] != b"content-length"
    ]


def test_other_errors_are_problems_for_browsers_too() -> None:
    def unavailable(_request: Request) -> Response:
        raise Unavailable("database", "locked")

    app = app_with(Route("/auth", unavailable))
    told = run(ask(app, "/auth", "POST", (HOST, (b"accept", BROWSER)), body_of(b"")))
    assert (told.status, told.header("content-type")) == (503, "application/problem+json")
