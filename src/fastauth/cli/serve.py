"""``fastauth serve``."""

import asyncio
import shlex
from pathlib import Path

import click

from fastauth.cli.options import settings_from, with_settings_options
from fastauth.server.settings import Settings, is_loopback


@click.command()
@with_settings_options
@click.option("--host", metavar="ADDRESS", help="Where to listen. [default: 127.0.0.1]")
@click.option("--port", metavar="PORT", type=int, help="[default: 8000]")
@click.option("--workers", metavar="N", type=int, help="Processes that serve. [default: 1]")
def serve(config: Path | None, data_dir: str | None, host: str | None, port: int | None, workers: int | None) -> None:
    """Serve logins and verifications until told to stop (SIGTERM, Ctrl-C)."""
    settings = settings_from(config, data_dir, host=host, port=port, workers=workers)
    from fastauth.server import lifecycle

    lifecycle.free_address(settings.host, settings.port)
    if password := asyncio.run(_prepare(settings)):
        _print_first_login(settings, password)
    if not is_loopback(settings.host) and settings.tls.cert_file is None and settings.proxy.trusted is None:
        click.echo(
            f"fastauth: WARNING: {settings.host} is reachable from other machines and passwords will cross the network "
            "unencrypted; set FASTAUTH_TLS__CERT_FILE and __KEY_FILE, or serve loopback behind a TLS proxy",
            err=True,
        )
    lifecycle.serve(settings, click.echo)


async def _prepare(settings: Settings) -> str | None:
    """Everything that can fail fails here, once and with one line, instead of in each worker."""
    from fastauth.server.bootstrap import add_first_user, load_key_ring, open_storage

    storage = open_storage(settings)
    try:
        await load_key_ring(settings, storage.keys)
        return await add_first_user(settings, storage.users)
    finally:
        storage.close()


def _print_first_login(settings: Settings, password: str) -> None:
    body = f'{{"username": "admin", "password": "{password}"}}'
    insecure = " -k" if settings.tls.cert_file else ""
    click.echo("fastauth: made the first user, admin; the password is shown only now")
    click.echo(f"password: {password}")
    click.echo(f"curl -s{insecure} -H 'Content-Type: application/json' -d {shlex.quote(body)} {settings.base_url}/auth")
