"""``fastauth client``: programs that authenticate with a secret of their own."""

import asyncio
import secrets
import sys
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar, cast, get_args

import click
import msgspec

from fastauth.cli.options import audit_of, settings_from, with_settings_options
from fastauth.domain.clients import GRANTS, Client, GrantName, Introspection, check_client_name
from fastauth.domain.errors import NotFound
from fastauth.domain.ports import ClientStore
from fastauth.domain.scopes import check_scope
from fastauth.server.bootstrap import open_client_secrets
from fastauth.server.settings import Settings
from fastauth.server.storage import Storage, open_existing_storage, open_storage

T = TypeVar("T")

_PAGE = 1_000
_WORDS = {True: "yes", False: "no"}
_LONGEST_OVERLAP_S = 30 * 86_400


@click.group()
def client() -> None:
    """Add, list and change clients: programs that get tokens for themselves or introspect those of others."""


def _with_storage(settings: Settings, work: Callable[[Storage], Awaitable[T]], *, may_create: bool = False) -> T:
    async def run() -> T:
        opening = open_storage(settings, is_command=True) if may_create else open_existing_storage(settings)
        storage = await opening
        try:
            return await work(storage)
        finally:
            await storage.close()

    return asyncio.run(run())


async def _found(clients: ClientStore, name: str) -> Client:
    """By name or by client_id. Raises NotFound."""
    found = await clients.find_by_name(name) or await clients.find(name)
    if found is None:
        raise NotFound("there is no client of this name or id; fastauth client list shows all")
    return found


_json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@client.command()
@click.argument("name")
@click.option("--grant", "grants", multiple=True, type=click.Choice(GRANTS), help="What it may ask /token for.")
@click.option("--scope", metavar='"A B"', help="The most that its tokens may be good for. [default: no scope]")
@click.option(
    "--introspect",
    type=click.Choice(get_args(Introspection)),
    default="own",
    show_default=True,
    help="Which tokens it may look at: its own and those whose aud names it, or any.",
)
@_json_option
@with_settings_options
def add(
    config: Path | None,
    data_dir: str | None,
    name: str,
    grants: tuple[str, ...],
    scope: str | None,
    introspect: str,
    as_json: bool,
) -> None:
    """Add a client; its secret is shown once. Without --grant it can introspect and revoke, and get no tokens."""
    settings = settings_from(config, data_dir)
    check_client_name(name)
    checked_scope = None if scope is None else check_scope(scope)
    client_id = secrets.token_hex(16)

    async def work(storage: Storage) -> str:
        secret, secret_hash = (await open_client_secrets(settings, storage)).make(client_id)
        now_s = int(time.time())
        await storage.clients.add(
            Client(
                client_id=client_id,
                name=name,
                secret_hash=secret_hash,
                grants=cast("tuple[GrantName, ...]", tuple(dict.fromkeys(grants))),
                scope=checked_scope,
                introspect=cast("Introspection", introspect),
                created_at_s=now_s,
                updated_at_s=now_s,
            )
        )
        return secret

    secret = _with_storage(settings, work, may_create=True)
    audit_of(settings).record(
        "client_added",
        client_id=client_id,
        name=name,
        grants=list(dict.fromkeys(grants)),
        scope=checked_scope,
        introspect=introspect,
    )
    _show_secret(f"added {name}", name, client_id, secret, as_json)


@client.command("list")
@_json_option
@with_settings_options
def list_clients(config: Path | None, data_dir: str | None, as_json: bool) -> None:
    """List every client, by name."""

    async def print_all(storage: Storage) -> None:
        after, count = "", 0
        while page := await storage.clients.list_clients(after, _PAGE):
            for found in page:
                click.echo(_as_json(found) if as_json else _as_line(found))
            after, count = page[-1].name, count + len(page)
        if not as_json and count == 0:
            click.echo("fastauth: there are no clients", err=True)

    _with_storage(settings_from(config, data_dir), print_all)


@client.command()
@click.argument("name")
@_json_option
@with_settings_options
def show(config: Path | None, data_dir: str | None, name: str, as_json: bool) -> None:
    """Show one client."""
    found = _with_storage(settings_from(config, data_dir), lambda storage: _found(storage.clients, name))
    if as_json:
        click.echo(_as_json(found))
        return
    for key, value in _public(found).items():
        shown = " ".join(value) if isinstance(value, list) else _WORDS.get(value, value)
        click.echo(f"{key + ':':<11} {shown or '-'}")


@client.command()
@click.argument("name")
@with_settings_options
def disable(config: Path | None, data_dir: str | None, name: str) -> None:
    """Refuse this client and, within a second, every token it has."""
    _set_disabled(settings_from(config, data_dir), name, disabled=True)


@client.command()
@click.argument("name")
@with_settings_options
def enable(config: Path | None, data_dir: str | None, name: str) -> None:
    """Let a disabled client get new tokens; those from before stay refused."""
    _set_disabled(settings_from(config, data_dir), name, disabled=False)


@client.command("rotate-secret")
@click.argument("name")
@click.option(
    "--keep-old",
    metavar="SECONDS",
    type=click.IntRange(0, _LONGEST_OVERLAP_S),
    default=0,
    help="For how long the old secret stays good too. [default: 0]",
)
@_json_option
@with_settings_options
def rotate_secret(config: Path | None, data_dir: str | None, name: str, keep_old: int, as_json: bool) -> None:
    """Give a client a new secret, which is shown once. Its tokens stay good; to end them too: disable, then enable."""
    settings = settings_from(config, data_dir)

    async def work(storage: Storage) -> tuple[str, str]:
        found = await _found(storage.clients, name)
        secret, secret_hash = (await open_client_secrets(settings, storage)).make(found.client_id)
        now_s = int(time.time())
        await storage.clients.set_secret(found.client_id, secret_hash, now_s + keep_old, now_s)
        return found.client_id, secret

    client_id, secret = _with_storage(settings, work)
    audit_of(settings).record("client_secret_rotated", client_id=client_id, keep_old_s=keep_old)
    _show_secret(f"{name} has a new secret", name, client_id, secret, as_json)


@client.command()
@click.argument("name")
@with_settings_options
def delete(config: Path | None, data_dir: str | None, name: str) -> None:
    """Delete a client; within a second every token it has is refused."""

    settings = settings_from(config, data_dir)

    async def work(storage: Storage) -> Client:
        found = await _found(storage.clients, name)
        await storage.clients.delete(found.client_id, int(time.time()))
        return found

    deleted = _with_storage(settings, work)
    audit_of(settings).record("client_deleted", client_id=deleted.client_id, name=deleted.name)
    click.echo(f"fastauth: deleted {name}")


def _set_disabled(settings: Settings, name: str, *, disabled: bool) -> None:
    async def work(storage: Storage) -> Client:
        found = await _found(storage.clients, name)
        await storage.clients.set_disabled(found.client_id, disabled, int(time.time()))
        return found

    found = _with_storage(settings, work)
    audit_of(settings).record(
        "client_disabled" if disabled else "client_enabled", client_id=found.client_id, name=found.name
    )
    click.echo(f"fastauth: {'disabled' if disabled else 'enabled'} {name}")


def _show_secret(what: str, name: str, client_id: str, secret: str, as_json: bool) -> None:
    """Raises ClickException when the secret cannot be shown: it is nowhere else."""
    try:
        if sys.stdout is None:
            raise OSError
        if as_json:
            click.echo(msgspec.json.encode({"client_id": client_id, "client_secret": secret}).decode())
            return
        click.echo(f"fastauth: {what}; the secret is shown only now")
        click.echo(f"client_id: {client_id}\nclient_secret: {secret}")
    except OSError:
        raise click.ClickException(
            f"{what}, but it could not be printed; run: fastauth client rotate-secret {name}"
        ) from None


def _public(found: Client) -> dict[str, Any]:
    """What may be shown of a client: never a hash."""
    return {
        "name": found.name,
        "client_id": found.client_id,
        "grants": list(found.grants),
        "scope": found.scope,
        "introspect": found.introspect,
        "disabled": found.disabled,
        "created": _time(found.created_at_s),
        "updated": _time(found.updated_at_s),
    }


def _time(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")


def _as_json(found: Client) -> str:
    return msgspec.json.encode(_public(found)).decode()


def _as_line(found: Client) -> str:
    state = "disabled" if found.disabled else "enabled"
    return f"{found.name}\t{found.client_id}\t{state}\t{' '.join(found.grants) or '-'}\t{found.scope or '-'}"
