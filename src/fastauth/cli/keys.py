"""``fastauth keys``: the signing keys, seen and rotated from the command line; a running server follows within 2 s."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

import click
import msgspec

from fastauth.cli.options import audit_of, settings_from, with_settings_options
from fastauth.jose.rotation import LONGEST_TOKEN_LIFE_S
from fastauth.server.bootstrap import open_signing_keys
from fastauth.server.settings import Settings
from fastauth.server.signing_keys import ListedKey, SigningKeys
from fastauth.server.storage import open_existing_storage

T = TypeVar("T")

_KID_LENGTH = 43  # SHA-256 in base64url


@click.group()
def keys() -> None:
    """List and rotate the keys that sign tokens."""


def _with_keys(settings: Settings, work: Callable[[SigningKeys], Awaitable[T]]) -> T:
    async def run() -> T:
        storage = await open_existing_storage(settings)
        try:
            return await work(open_signing_keys(settings, storage, audit_of(settings)))
        finally:
            await storage.close()

    return asyncio.run(run())


@keys.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, one object a line.")
@with_settings_options
def list_keys(config: Path | None, data_dir: str | None, as_json: bool) -> None:
    """List every key: next, active, retired or removed, and when that changes."""
    listed = _with_keys(settings_from(config, data_dir), lambda keys: keys.listed())
    for key in listed:
        click.echo(_as_json(key) if as_json else _as_line(key))
    if not listed and not as_json:
        click.echo("fastauth: there are no keys yet; the first start of fastauth serve makes one", err=True)


@keys.command()
@click.option("--now", "at_once", is_flag=True, help="A key is compromised: refuse every token there is, at once.")
@with_settings_options
def rotate(config: Path | None, data_dir: str | None, at_once: bool) -> None:
    """Publish the next key; it signs once everybody has had the time to fetch it.

    With --now a new key signs at once and every other key is removed: all tokens that were issued so far are refused
    within 2 seconds, and everybody logs in again.
    """
    settings = settings_from(config, data_dir)
    if at_once:
        made = _with_keys(settings, lambda keys: keys.rotate_now())
        click.echo(f"fastauth: {made.kid} signs from now on; all other keys are removed, and their tokens refused")
        return
    made = _with_keys(settings, lambda keys: keys.rotate())
    what = "is published already" if made.existed else "is published"
    hours = LONGEST_TOKEN_LIFE_S // 3600
    click.echo(
        f"fastauth: {made.kid} {what} and will sign from {_time(made.activates_ms)}; the key that it follows stays "
        f"published for {hours} hours more"
    )


class _KidCommand(click.Command):
    """Of 64 kids one begins with a hyphen; it is a kid all the same."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        kids = [arg for arg in args if len(arg) == _KID_LENGTH and arg.startswith("-")]
        if kids and "--" not in args:
            args = [*(arg for arg in args if arg not in kids), "--", *kids]
        return super().parse_args(ctx, args)


@keys.command(cls=_KidCommand)
@click.argument("kid")
@click.option("--now", "at_once", is_flag=True, help="Also a retired key whose tokens may still be alive.")
@with_settings_options
def retire(config: Path | None, data_dir: str | None, kid: str, at_once: bool) -> None:
    """Take a key that does not sign out of the JWKS.

    A retired key goes by itself once its last token has expired; the active key is refused: rotate first.
    """
    done = _with_keys(settings_from(config, data_dir), lambda keys: keys.retire(kid, at_once=at_once))
    click.echo(f"fastauth: {kid} is removed" + (" already" if done == "removed_before" else ""))


def _public(key: ListedKey) -> dict[str, str | None]:
    return {
        "kid": key.kid,
        "alg": key.alg,
        "state": key.state,
        "published": _time(key.published_ms),
        "signs_from": _time(key.activates_ms),
        "signs_until": _time(key.retires_ms),
        "removed": _time(key.removes_ms),
    }


def _time(ms: int | None) -> str | None:
    if ms is None:
        return None
    return datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def _as_json(key: ListedKey) -> str:
    return msgspec.json.encode(_public(key)).decode()


def _as_line(key: ListedKey) -> str:
    now_next = {
        "next": f"signs from {_time(key.activates_ms)}",
        "active": f"signs since {_time(key.activates_ms)}"
        + (f" until {_time(key.retires_ms)}" if key.retires_ms else ""),
        "retired": f"verifies until {_time(key.removes_ms)}",
        "removed": f"since {_time(key.removes_ms)}",
    }
    return f"{key.kid}\t{key.alg}\t{key.state}\t{now_next[key.state]}"
