"""``fastauth serve``."""

import asyncio
import shlex
import sys
from pathlib import Path

import click

from fastauth.cli.options import settings_from, with_settings_options
from fastauth.domain.hosts import is_loopback
from fastauth.server.settings import Settings


@click.command()
@with_settings_options
@click.option("--host", metavar="ADDRESS", help="Where to listen. [default: 127.0.0.1]")
@click.option("--port", type=click.IntRange(1, 65_535), help="[default: 8000]")
@click.option("--workers", type=click.IntRange(1, 64), help="Processes that serve. [default: 1]")
def serve(config: Path | None, data_dir: str | None, host: str | None, port: int | None, workers: int | None) -> None:
    """Serve logins and verifications until told to stop (SIGTERM, Ctrl-C)."""
    settings = settings_from(config, data_dir, host=host, port=port, workers=workers)
    from fastauth.server import lifecycle
    from fastauth.server.audit import open_audit, tell_limits
    from fastauth.server.instance import InstanceLock
    from fastauth.server.storage import prepare_data_dir

    if settings.otel.is_on:
        from fastauth.server.tracing import check_extra

        check_extra()
    lifecycle.free_address(settings.host, settings.port)
    prepare_data_dir(settings)
    lock = InstanceLock(settings)  # before anything is changed: another server may be running on it
    try:
        if password := asyncio.run(_prepare(settings)):
            _print_first_login(settings, password)
        _warn_of_plain_http(settings)
        audit = open_audit(settings)
        tell_limits(settings, audit)
        audit.close()  # this process lives as long as the server, and would hold on to a file that was rotated away
        lifecycle.serve(settings, click.echo)
    finally:
        lock.release()


def _warn_of_plain_http(settings: Settings) -> None:
    if not is_loopback(settings.host) and settings.tls.cert_file is None and settings.proxy.trusted is None:
        click.echo(
            f"fastauth: WARNING: {settings.host} is reachable from other machines and passwords will cross the network "
            "unencrypted; set FASTAUTH_TLS__CERT_FILE and __KEY_FILE, or serve loopback behind a TLS proxy",
            err=True,
        )


async def _prepare(settings: Settings) -> str | None:
    """Everything that can fail fails here, once and with one line, instead of in each worker."""
    from fastauth.server.audit import open_audit
    from fastauth.server.bootstrap import add_first_user, open_signing_keys
    from fastauth.server.storage import open_storage

    audit = open_audit(settings)
    storage = await open_storage(settings)
    try:
        keys = open_signing_keys(settings, storage, audit)
        await keys.load()
        await keys.start_serving()
        return await add_first_user(settings, storage.users, audit)
    finally:
        audit.close()
        await storage.close()


def _print_first_login(settings: Settings, password: str) -> None:
    body = f'{{"username": "admin", "password": "{password}"}}'
    insecure = " -k" if settings.tls.cert_file else ""
    curl = f"curl -s{insecure} -H 'Content-Type: application/json' -d {shlex.quote(body)} {settings.base_url}/auth"
    try:
        if sys.stdout is None:
            raise OSError
        click.echo(
            f"fastauth: made the first user, admin; the password is shown only now\npassword: {password}\n{curl}"
        )
    except OSError:
        raise click.ClickException(
            "made the first user, admin, but its password could not be printed; run: fastauth user set-password admin"
        ) from None
