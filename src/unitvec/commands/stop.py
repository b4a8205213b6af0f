"""``unitvec stop``."""

from __future__ import annotations

import click

from unitvec.commands import client
from unitvec.errors import UnitvecError
from unitvec.store.name import Name


@click.command()
@click.argument("model")
def command(model: str) -> None:
    """Unload MODEL from a running server's memory, once nobody uses it."""
    Name.parse(model)
    try:
        client.server().call("POST", "/api/generate", {"model": model, "keep_alive": 0})
    except UnitvecError as error:
        if "not found" in error.message:
            raise UnitvecError(f"couldn't find model {model!r} to stop") from None
        raise
