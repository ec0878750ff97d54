"""``GET /openapi.json``: made from the route table, so that it cannot describe what is not served."""

import re
from collections.abc import Iterable, Mapping, Sequence
from http import HTTPStatus
from typing import Any, Final, Literal, Protocol

import msgspec

from fastauth.endpoints.documents import CachedDocument
from fastauth.endpoints.http import Request, Response

Security = Literal["bearer", "client", "client_or_public"]
JSON_TYPE: Final = "application/json"
FORM_TYPE: Final = "application/x-www-form-urlencoded"
PROBLEM_TYPE: Final = "application/problem+json"
_REF: Final = "#/components/schemas/{name}"


class ProblemBody(msgspec.Struct, omit_defaults=True):
    """RFC 9457; ``code`` names the problem for programs."""

    type: str
    title: str
    status: int
    code: str
    detail: str
    request_id: str | None = None


class OAuthErrorBody(msgspec.Struct, omit_defaults=True):
    """RFC 6749 section 5.2."""

    error: str
    error_description: str
    request_id: str | None = None


class Operation(msgspec.Struct, frozen=True, kw_only=True):
    """What one route does, for readers of the document.

    ``body`` is the type of the request body, as JSON or, where ``is_form``, as a form; ``answers`` maps each status of
    a success to the type of its body, a media type, or None for none; ``problems`` are the statuses of refusals.
    """

    summary: str
    answers: Mapping[int, Any]
    problems: tuple[int, ...] = ()
    body: Any = None
    is_form: bool = False
    is_body_optional: bool = False
    security: Security | None = None


OPERATION: Final = Operation(summary="This document", answers={200: JSON_TYPE, 304: None})


class DescribedRoute(Protocol):
    """The part of a route that is needed here."""

    path: str
    methods: tuple[str, ...]
    is_subtree: bool
    operation: Operation | None

    @property
    def is_oauth(self) -> bool: ...


# Any request may be broken, and any server.
_EVERYWHERE: Final = (400, 500, 503)
_WITH_BODY: Final = (408, 413)
_ANY_METHOD: Final = ("GET", "POST", "PUT", "PATCH", "DELETE")
_SECURITY: Final[dict[Security | None, list[dict[str, list[str]]]]] = {
    None: [],
    "bearer": [{"bearer": []}],
    "client": [{"client": []}],
    "client_or_public": [{"client": []}, {}],
}


class OpenApiEndpoint:
    """Makes the document when it is first asked for."""

    def __init__(self, routes: Sequence[DescribedRoute], version: str, server_url: str) -> None:
        """In: the routes, this one among them; the list may still grow."""
        self._routes = routes
        self._version = version
        self._server_url = server_url
        self._document: CachedDocument | None = None

    def __call__(self, request: Request) -> Response:
        """304 when the client has this very document."""
        if self._document is None:
            self._document = CachedDocument(openapi_document(self._routes, self._version, self._server_url))
        return self._document(request)


def openapi_document(routes: Iterable[DescribedRoute], version: str, server_url: str) -> bytes:
    """The document (OpenAPI 3.1) of all routes that have an ``operation``."""
    described = [(route, route.operation) for route in routes if route.operation is not None]
    types: list[Any] = [ProblemBody, OAuthErrorBody]
    for _, operation in described:
        types += [kind for kind in (operation.body, *operation.answers.values()) if isinstance(kind, type)]
    _, components = msgspec.json.schema_components(dict.fromkeys(types), ref_template=_REF)
    paths: dict[str, Any] = {}
    for route, operation in described:
        paths[route.path] = _path_item(route, operation, route.path)
        if route.is_subtree:
            below = route.path + "/{rest}"
            parameter = {"name": "rest", "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
            paths[below] = {"parameters": [parameter], **_path_item(route, operation, below)}
    return msgspec.json.encode(
        {
            "openapi": "3.1.0",
            "info": {"title": "fastauth", "version": version},
            "servers": [{"url": server_url}],
            "paths": paths,
            "components": {
                "schemas": components,
                "securitySchemes": {
                    "bearer": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"},
                    "client": {"type": "http", "scheme": "basic", "description": "client_id and client_secret"},
                },
            },
        }
    )


def _path_item(route: DescribedRoute, operation: Operation, path: str) -> dict[str, Any]:
    methods = [method for method in route.methods or _ANY_METHOD if method != "HEAD"]
    return {method.lower(): _operation(route, operation, method, path) for method in methods}


def _operation(route: DescribedRoute, operation: Operation, method: str, path: str) -> dict[str, Any]:
    error_type, error_body = (JSON_TYPE, OAuthErrorBody) if route.is_oauth else (PROBLEM_TYPE, ProblemBody)
    with_body = _WITH_BODY if operation.body is not None else ()
    statuses = sorted({*operation.problems, *_EVERYWHERE, *with_body})
    answers = {str(status): _answer(status, JSON_TYPE, kind) for status, kind in operation.answers.items()}
    answers |= {str(status): _answer(status, error_type, error_body) for status in statuses}
    described: dict[str, Any] = {
        "operationId": f"{method.lower()}_{re.sub('[^a-z]+', '_', path).strip('_')}",
        "summary": operation.summary,
        "security": _SECURITY[operation.security],
        "responses": answers,
    }
    if operation.body is not None:
        media_type = FORM_TYPE if operation.is_form else JSON_TYPE
        described["requestBody"] = {
            "required": not operation.is_body_optional,
            "content": {media_type: {"schema": _schema(operation.body)}},
        }
    return described


def _answer(status: int, media_type: str, kind: Any) -> dict[str, Any]:
    answer: dict[str, Any] = {"description": HTTPStatus(status).phrase}
    if isinstance(kind, str):
        answer["content"] = {kind: {}}
    elif kind is not None:
        answer["content"] = {media_type: {"schema": _schema(kind)}}
    return answer


def _schema(kind: type) -> dict[str, str]:
    return {"$ref": _REF.format(name=kind.__name__)}
