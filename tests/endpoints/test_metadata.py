"""The documents about the server: RFC 8414 metadata and OpenAPI."""

import json

from fastauth.endpoints.documents import CachedDocument
from fastauth.endpoints.metadata import metadata_paths, server_metadata
from tests.cases import each
from tests.endpoints.application import Application
from tests.endpoints.asking import ReadyRequest, header_of
from tests.server.asking import HOST, ask


def test_the_metadata_say_what_there_is(application: Application) -> None:
    answer = application.run(ask(application.app, "/.well-known/oauth-authorization-server"))
    assert (answer.status, answer.header("content-type")) == (200, "application/json")
    assert answer.json == {
        "issuer": "https://auth.example",
        "token_endpoint": "https://auth.example/token",
        "jwks_uri": "https://auth.example/.well-known/jwks.json",
        "revocation_endpoint": "https://auth.example/revoke",
        "introspection_endpoint": "https://auth.example/introspect",
        "grant_types_supported": ["client_credentials", "refresh_token"],
        "response_types_supported": [],
        "token_endpoint_auth_methods_supported": ["client_secret_basic", "client_secret_post", "none"],
        "revocation_endpoint_auth_methods_supported": ["client_secret_basic", "client_secret_post", "none"],
        "introspection_endpoint_auth_methods_supported": ["client_secret_basic", "client_secret_post"],
    }


def test_no_header_of_a_request_changes_them(application: Application) -> None:
    path = "/.well-known/oauth-authorization-server"
    plain = application.run(ask(application.app, path))
    spoofed = application.run(
        ask(
            application.app,
            path,
            headers=((b"host", b"evil.example"), (b"x-forwarded-host", b"evil.example"), (b"forwarded", b"host=evil")),
        )
    )
    assert spoofed.body == plain.body
    assert spoofed.header("etag") == plain.header("etag")


@each("path", ["/.well-known/oauth-authorization-server", "/openapi.json"])
def test_whoever_has_a_document_is_told_so(application: Application, path: str) -> None:
    full = application.run(ask(application.app, path))
    etag = full.header("etag")
    assert etag is not None
    assert full.header("cache-control") == "public, max-age=300"
    again = application.run(ask(application.app, path, headers=(HOST, (b"if-none-match", etag.encode()))))
    assert (again.status, again.body, again.header("etag")) == (304, b"", etag)


@each(
    ("issuer", "paths"),
    [
        ("https://a.example", [""]),
        ("https://a.example/", [""]),
        ("https://a.example/auth", ["", "/auth"]),
        ("https://a.example/x/auth/", ["", "/x/auth"]),
    ],
)
def test_the_metadata_of_an_issuer_with_a_path_are_found_behind_it_too(issuer: str, paths: list[str]) -> None:
    assert metadata_paths(issuer) == [f"/.well-known/oauth-authorization-server{path}" for path in paths]


def test_the_urls_of_an_issuer_that_ends_in_a_slash_have_no_second_one() -> None:
    document = json.loads(server_metadata("https://a.example/x/", ["refresh_token"]))
    assert document["issuer"] == "https://a.example/x/"
    assert document["token_endpoint"] == "https://a.example/x/token"


def test_every_etag_that_matches_is_honoured() -> None:
    document = CachedDocument(b"{}", etag=b'"e"')
    for wanted, status in ((b'"e"', 304), (b'W/"e"', 304), (b'"x", "e"', 304), (b"*", 304), (b'"x"', 200), (b"", 200)):
        assert document(ReadyRequest(headers={b"if-none-match": wanted})).status == status
    assert header_of(document(ReadyRequest()), "etag") == '"e"'


def test_openapi_describes_every_route_that_is_served(application: Application) -> None:
    document = application.run(ask(application.app, "/openapi.json")).json
    assert document["openapi"] == "3.1.0"
    assert document["paths"].keys() == {
        "/auth",
        "/verify",
        "/verify/{rest}",
        "/token",
        "/introspect",
        "/revoke",
        "/logout",
        "/.well-known/jwks.json",
        "/.well-known/oauth-authorization-server",
        "/livez",
        "/readyz",
        "/metrics",
        "/openapi.json",
    }
    operations = [
        operation for item in document["paths"].values() for operation in item.values() if "responses" in operation
    ]
    assert len({operation["operationId"] for operation in operations}) == len(operations)
    text = json.dumps(document)
    for reference in {part.split('"')[0] for part in text.split("#/components/schemas/")[1:]}:
        assert reference in document["components"]["schemas"]
