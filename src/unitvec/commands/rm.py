"""``unitvec rm``."""

from __future__ import annotations

import click

from unitvec import config
from unitvec.commands import client
from unitvec.errors import ModelNotFound
from unitvec.store.name import Name


@click.command()
@click.argument("models", nargs=-1, required=True, metavar="MODEL...")
def command(models: tuple[str, ...]) -> None:
    """Remove models, and what no other model needs of them."""
    names = [Name.parse(model) for model in models]
    server = client.running()
    for model, name in zip(models, names, strict=True):
        if server:
            server.call("DELETE", "/api/delete", {"model": model})
        elif not config.stores().remove(name):
            raise ModelNotFound(f"model '{model}' not found")
        click.echo(f"deleted '{model}'")
