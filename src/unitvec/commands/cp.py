"""``unitvec cp``."""

from __future__ import annotations

import click

from unitvec import config
from unitvec.commands import client
from unitvec.errors import ModelNotFound
from unitvec.store.name import Name


@click.command()
@click.argument("source")
@click.argument("destination")
def command(source: str, destination: str) -> None:
    """Give the model SOURCE another name as well; no bytes are copied."""
    names = Name.parse(source), Name.parse(destination)
    if server := client.running():
        server.call("POST", "/api/copy", {"source": source, "destination": destination})
    elif not config.stores().copy(*names):
        raise ModelNotFound(f'model "{source}" not found')
    click.echo(f"copied '{source}' to '{destination}'")
