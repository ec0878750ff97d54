"""The refusal of an overloaded server as a person in front of a browser sees it: a page that waits and tries again."""

import base64
from hashlib import sha256
from importlib.resources import files
from typing import Final

from fastauth.domain.errors import Overloaded
from fastauth.domain.waiting_line import RETURN_WINDOW_S
from fastauth.endpoints.http import NO_STORE, Headers, Request, Response
from fastauth.endpoints.login_queue import TICKET_COOKIE

_KEPT: Final = "Your place in line is kept. This page tries again by itself, so there is nothing you have to do."
_NOT_KEPT: Final = "There is no room for more at the moment. This page tries again by itself."
_PAGE: Final = files("fastauth.endpoints").joinpath("waiting_page.html").read_text(encoding="utf-8")


def _source_of(tag: str) -> str:
    """What a Content-Security-Policy names the one inline element of this tag by (CSP Level 3 section 6.6.2.2)."""
    inside = _PAGE.partition(f"<{tag}>")[2].partition(f"</{tag}>")[0]
    return "'sha256-" + base64.b64encode(sha256(inside.encode()).digest()).decode() + "'"


_POLICY: Final = (
    f"default-src 'none'; script-src {_source_of('script')}; style-src {_source_of('style')}; "
    "base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
_HEADERS: Final = (
    (b"content-type", b"text/html; charset=utf-8"),
    NO_STORE,
    (b"content-security-policy", _POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"vary", b"accept"),
)


def wants_page(request: Request) -> bool:
    """Whether it is a browser that shows what it gets: only they ask for HTML by name."""
    return b"text/html" in request.headers.get(b"accept", b"")


def waiting_page(refusal: Overloaded, request: Request) -> Response:
    """503 as a page that counts the seconds down and asks again as it was asked; a ticket goes along as a cookie."""
    seconds = b"%d" % refusal.retry_after_s
    headers: Headers = (*_HEADERS, (b"retry-after", seconds))
    if refusal.ticket is not None:
        headers = (*headers, (b"set-cookie", _cookie(refusal.ticket, refusal.retry_after_s)))
    promise = _KEPT if refusal.ticket is not None else _NOT_KEPT
    body = _PAGE.replace("SECONDS", str(refusal.retry_after_s)).replace("PROMISE", promise).encode()
    return Response(503, headers, b"" if request.method == "HEAD" else body)


def _cookie(ticket: str, retry_after_s: int) -> bytes:
    age_s = retry_after_s + RETURN_WINDOW_S
    return b"%b=%b; Path=/; Secure; HttpOnly; SameSite=Lax; Max-Age=%d" % (TICKET_COOKIE, ticket.encode(), age_s)
