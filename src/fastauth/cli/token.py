"""``fastauth token``: look into an access token, or verify it; it comes on standard input, never as an argument."""

import asyncio
import json
import sys
import time
from pathlib import Path
from typing import Any

import click
import msgspec

from fastauth import core
from fastauth.cli.options import settings_from, with_settings_options
from fastauth.jose import TokenRefused, base64url
from fastauth.jose.jws import MAX_TOKEN_BYTES
from fastauth.jose.keyset import KeySet
from fastauth.server.bootstrap import open_signing_keys
from fastauth.server.settings import Settings
from fastauth.server.storage import open_existing_storage
from fastauth.verifier import Verifier

_DEPTH = 16


@click.group()
def token() -> None:
    """Inspect or verify an access token read from standard input."""


@token.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@with_settings_options
def inspect(config: Path | None, data_dir: str | None, as_json: bool) -> None:
    """Show the header and the claims of a token without verifying anything; no setting is read."""
    del config, data_dir
    parts = _read_token().split(b".")
    if len(parts) != 3:
        raise click.ClickException("not a token: it must have three parts")
    header, claims = _decode(parts[0], "header"), _decode(parts[1], "payload")
    if as_json:
        click.echo(_as_json({"header": header, "claims": claims, "verified": False}))
        return
    click.echo(f"header: {_as_json(header)}")
    for name, value in claims.items():
        click.echo(f"{_as_json(name)[1:-1]}: {_as_json(value)}{_when(name, value)}")
    click.echo("fastauth: nothing was verified; fastauth token verify does that", err=True)


@token.command()
@click.option("--json", "as_json", is_flag=True, help="Print the claims as JSON.")
@with_settings_options
def verify(config: Path | None, data_dir: str | None, as_json: bool) -> None:
    """Verify a token with the keys of this installation, as /verify does."""
    settings = settings_from(config, data_dir)
    keys = asyncio.run(_load_keys(settings))
    try:
        claims = Verifier.from_keys(keys, settings.issuer_url, settings.audience).verify(_read_token())
    except TokenRefused as refusal:
        hint = f" than {settings.issuer_url}; is FASTAUTH_ISSUER or FASTAUTH_PORT that of the server?"
        raise click.ClickException(
            f"refused ({refusal.code}): {refusal}{hint if refusal.code == 'issuer' else ''}"
        ) from None
    if as_json:
        click.echo(claims.payload.decode())
    else:
        subject, scope = (
            _as_json(claims.sub)[1:-1],
            _as_json(claims.scope or "-")[1:-1],
        )  # nothing that a terminal obeys
        click.echo(f"fastauth: valid; subject {subject}, scope {scope}{_when('exp', claims.exp)}")


async def _load_keys(settings: Settings) -> KeySet:
    storage = await open_existing_storage(settings)
    try:
        return (await open_signing_keys(settings, storage).load_existing()).verifying
    finally:
        await storage.close()


def _read_token() -> bytes:
    if sys.stdin is None:
        raise click.ClickException("there is no standard input; the token comes on it")
    if sys.stdin.isatty():
        click.echo("fastauth: paste the token, then Enter and Ctrl-D", err=True)
    text = sys.stdin.buffer.read(MAX_TOKEN_BYTES + 3).strip()
    if not text:
        raise click.ClickException("no token came on standard input")
    return text


def _decode(part: bytes, what: str) -> dict[str, Any]:
    data = base64url.decode(part)
    if data is None or core.scan_json(data, _DEPTH) != core.JSON_OK:
        raise click.ClickException(f"not a token: its {what} is no JSON object in base64url")
    try:
        decoded: dict[str, Any] = msgspec.json.decode(data, type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise click.ClickException(f"not a token: its {what} is no JSON object in base64url") from None
    return decoded


def _as_json(value: object) -> str:
    """JSON in ASCII: anybody may have written it, and a terminal must not act on it."""
    return json.dumps(value).replace("\x7f", "\\u007f")


def _when(name: str, value: object) -> str:
    if name not in ("exp", "iat", "nbf", "auth_time") or not isinstance(value, int):
        return ""
    away_s = value - int(time.time())
    return f" ({'in' if away_s >= 0 else ''} {abs(away_s)} s{'' if away_s >= 0 else ' ago'})".replace("( ", "(")
