"""``fastauth user``: accounts from the command line."""

import asyncio
import sys
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import click
import msgspec

from fastauth.backends.passwords import PasswordHasher
from fastauth.cli.options import audit_of, settings_from, with_settings_options
from fastauth.domain.errors import Conflict, NotFound
from fastauth.domain.identity import LOCAL, check_subject
from fastauth.domain.ports import UserStore
from fastauth.domain.scopes import check_scope
from fastauth.domain.users import (
    MAX_PASSWORD_BYTES,
    User,
    canonical_name,
    check_new_password,
    skeleton,
)
from fastauth.server.bootstrap import generate_password, new_user
from fastauth.server.settings import Settings
from fastauth.server.storage import open_existing_storage, open_storage

T = TypeVar("T")

_PAGE = 1_000
_WORDS = {None: "-", True: "yes", False: "no"}


@click.group()
def user() -> None:
    """Add, list, change and import users."""


def _with_users(settings: Settings, work: Callable[[UserStore], Awaitable[T]], *, may_create: bool = False) -> T:
    async def run() -> T:
        opening = open_storage(settings, is_command=True) if may_create else open_existing_storage(settings)
        storage = await opening
        try:
            return await work(storage.users)
        finally:
            await storage.close()

    return asyncio.run(run())


def _find(settings: Settings, canonical: str) -> User | None:
    if settings.sqlite_path is not None and not settings.sqlite_path.is_file():
        return None
    return _with_users(settings, lambda users: users.find_by_name(canonical))


def _say_done(what: str, name: str, generated: str | None) -> None:
    """Raises ClickException when a generated password cannot be shown: it is nowhere else."""
    try:
        if generated is not None and sys.stdout is None:
            raise OSError
        click.echo(f"fastauth: {what}")
        if generated is not None:
            click.echo(f"password: {generated}")
    except OSError:
        if generated is None:
            raise
        raise click.ClickException(
            f"{what}, but its new password could not be printed; run: fastauth user set-password {name}"
        ) from None


def _read_password(from_stdin: bool) -> tuple[str, bool]:
    """The new password, and whether it was generated: from stdin, from a prompt, or made up when there is neither."""
    if sys.stdin is None:
        raise click.ClickException("standard input is closed; a password cannot be read")
    if from_stdin:
        # One line ending belongs to the pipe, everything else to the password.
        text = sys.stdin.buffer.read(MAX_PASSWORD_BYTES + 3)
        text = text.removesuffix(b"\n").removesuffix(b"\r")
        try:
            return check_new_password(text.decode()), False
        except UnicodeDecodeError:
            raise click.ClickException("the password on standard input is not UTF-8") from None
    if sys.stdin.isatty():
        password: str = click.prompt("Password", hide_input=True, confirmation_prompt=True, err=True)
        return check_new_password(password), False
    return generate_password(), True


_password_option = click.option("--password-stdin", is_flag=True, help="Read the password from standard input.")
_json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@user.command()
@click.argument("name")
@_password_option
@click.option("--scope", metavar='"A B"', help="What this user's tokens are good for. [default: tokens.user_scope]")
@click.option("--source", type=click.Choice(["http", "ldap"]), help="Who checks this user's password, if not fastauth.")
@click.option("--subject", metavar="ID", help="The user's immutable id at the source; goes with --source.")
@with_settings_options
def add(
    config: Path | None,
    data_dir: str | None,
    name: str,
    password_stdin: bool,
    scope: str | None,
    source: str | None,
    subject: str | None,
) -> None:
    """Add a user. Without --password-stdin the password is asked for, or made up where nobody can be asked.

    One of an external source (--source, --subject) has no password here; with identity.provision such users are added
    when they log in for the first time.
    """
    if (source is None) != (subject is None):
        raise click.UsageError("--source and --subject go together")
    if source is not None and password_stdin:
        raise click.UsageError("a user of a source has no password here: leave --password-stdin out")
    settings = settings_from(config, data_dir)
    canonical = canonical_name(name)
    checked_scope = None if scope is None else check_scope(scope)
    if _find(settings, canonical) is not None:  # before anybody types a password for nothing
        raise Conflict("a user of this name exists already")
    if source is not None and subject is not None:
        theirs = new_user(canonical, "", checked_scope, source=source, subject=check_subject(subject))
        _with_users(settings, lambda users: users.add(theirs, skeleton(canonical)), may_create=True)
        audit_of(settings).record("user_added", sub=theirs.sub, name=canonical, source=source)
        _say_done(f"added {canonical}, whom {source} knows as {subject}", canonical, None)
        return
    password, is_generated = _read_password(password_stdin)
    account = new_user(canonical, PasswordHasher(settings.passwords).hash(password), checked_scope)
    _with_users(settings, lambda users: users.add(account, skeleton(canonical)), may_create=True)
    audit_of(settings).record("user_added", sub=account.sub, name=canonical, source=LOCAL)
    _say_done(f"added {canonical}", canonical, password if is_generated else None)


@user.command("list")
@_json_option
@with_settings_options
def list_users(config: Path | None, data_dir: str | None, as_json: bool) -> None:
    """List every user, by name."""
    settings = settings_from(config, data_dir)

    async def print_all(users: UserStore) -> None:
        after, count = "", 0
        while page := await users.list_users(after, _PAGE):
            for account in page:
                click.echo(_as_json(account) if as_json else _as_line(account))
            after, count = page[-1].name, count + len(page)
        if not as_json and count == 0:
            click.echo("fastauth: there are no users", err=True)

    _with_users(settings, print_all)


@user.command()
@click.argument("name")
@_json_option
@with_settings_options
def show(config: Path | None, data_dir: str | None, name: str, as_json: bool) -> None:
    """Show one user."""
    settings = settings_from(config, data_dir)
    account = _with_users(settings, lambda users: users.find_by_name(canonical_name(name)))
    if account is None:
        raise NotFound("there is no user of this name; fastauth user list shows all")
    if as_json:
        click.echo(_as_json(account))
        return
    for key, value in _public(account).items():
        click.echo(f"{key + ':':<10} {_WORDS.get(value, value)}")


@user.command()
@click.argument("name")
@with_settings_options
def disable(config: Path | None, data_dir: str | None, name: str) -> None:
    """Refuse this user's logins from now on."""
    _set_disabled(settings_from(config, data_dir), name, disabled=True)


@user.command()
@click.argument("name")
@with_settings_options
def enable(config: Path | None, data_dir: str | None, name: str) -> None:
    """Allow this user's logins again."""
    _set_disabled(settings_from(config, data_dir), name, disabled=False)


@user.command("set-password")
@click.argument("name")
@_password_option
@with_settings_options
def set_password(config: Path | None, data_dir: str | None, name: str, password_stdin: bool) -> None:
    """Give a user a new password."""
    settings = settings_from(config, data_dir)
    canonical = canonical_name(name)
    account = _find(settings, canonical)
    if account is None:
        raise NotFound("there is no user of this name; fastauth user list shows all")
    if account.source != LOCAL:
        raise click.ClickException(f"the password of {canonical} is checked by {account.source}; change it there")
    password, is_generated = _read_password(password_stdin)
    password_hash = PasswordHasher(settings.passwords).hash(password)
    _with_users(settings, lambda users: users.set_password_hash(canonical, password_hash, int(time.time())))
    audit_of(settings).record("user_password_set", sub=account.sub, name=canonical)
    _say_done(f"changed the password of {canonical}", canonical, password if is_generated else None)


@user.command()
@click.argument("name")
@with_settings_options
def delete(config: Path | None, data_dir: str | None, name: str) -> None:
    """Delete a user; a new one of the same name will be somebody else (another sub)."""
    settings = settings_from(config, data_dir)
    canonical = canonical_name(name)

    async def work(users: UserStore) -> str | None:
        sub = await _sub_of(users, canonical)
        await users.delete(canonical, int(time.time()))
        return sub

    audit_of(settings).record("user_deleted", sub=_with_users(settings, work), name=canonical)
    click.echo(f"fastauth: deleted {canonical}")


@user.command("import")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, readable=True, path_type=Path))
@_json_option
@with_settings_options
def import_users(config: Path | None, data_dir: str | None, file: Path, as_json: bool) -> int:
    """Add the users of a JSON Lines file; names that exist are left as they are, so it is safe to run again.

    A line is {"username", "password_hash"} (argon2, bcrypt, pbkdf2, scrypt, also as passlib and Django write them),
    {"username", "password"} or {"username", "keycloak": {"credentialData", "secretData"}}, and may have "scope" and
    "disabled".
    """
    from fastauth.server.user_import import import_file

    settings = settings_from(config, data_dir)
    size = file.stat().st_size
    hasher = PasswordHasher(settings.passwords)
    with click.progressbar(length=size, label="importing", file=sys.stderr, hidden=not sys.stderr.isatty()) as bar:
        report = _with_users(settings, lambda users: import_file(file, users, hasher, bar.update), may_create=True)
    audit_of(settings).record(
        "users_imported", added=report.added, existing=report.existing, bad_lines=report.bad_count
    )
    for line, reason in report.bad:
        click.echo(f"fastauth: {file} line {line}: {reason}", err=True)
    if report.bad_count > len(report.bad):
        click.echo(f"fastauth: and {report.bad_count - len(report.bad)} more bad lines", err=True)
    if as_json:
        click.echo(msgspec.json.encode(report).decode())
    else:
        click.echo(f"fastauth: {report.added} added, {report.existing} existed already, {report.bad_count} bad lines")
    return 1 if report.bad_count else 0


def _set_disabled(settings: Settings, name: str, *, disabled: bool) -> None:
    canonical = canonical_name(name)

    async def work(users: UserStore) -> str | None:
        sub = await _sub_of(users, canonical)
        await users.set_disabled(canonical, disabled, int(time.time()))
        return sub

    sub = _with_users(settings, work)
    audit_of(settings).record("user_disabled" if disabled else "user_enabled", sub=sub, name=canonical)
    click.echo(f"fastauth: {'disabled' if disabled else 'enabled'} {canonical}")


async def _sub_of(users: UserStore, canonical: str) -> str | None:
    account = await users.find_by_name(canonical)
    return None if account is None else account.sub


def _public(account: User) -> dict[str, Any]:
    """What may be shown of an account: never the hash."""
    return {
        "name": account.name,
        "sub": account.sub,
        "scope": account.scope,
        "source": account.source,
        "subject": account.subject,
        "disabled": account.disabled,
        "created": _time(account.created_at_s),
        "updated": _time(account.updated_at_s),
    }


def _time(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")


def _as_json(account: User) -> str:
    return msgspec.json.encode(_public(account)).decode()


def _as_line(account: User) -> str:
    state = "disabled" if account.disabled else "enabled"
    return f"{account.name}\t{account.sub}\t{state}\t{account.scope or '-'}"
