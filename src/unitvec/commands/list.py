"""``unitvec list``."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

import click

from unitvec import config, human
from unitvec.commands import client, table


@click.command()
@click.argument("prefix", default="")
def command(prefix: str) -> None:
    """List the models at hand, or those whose names begin with PREFIX."""
    now = datetime.now(UTC)
    rows = [
        (name, digest[:12], human.size(size), human.moment(modified, now))
        for name, digest, size, modified in _models()
        if name.lower().startswith(prefix.lower())
    ]
    table.echo([("NAME", "ID", "SIZE", "MODIFIED"), *rows])


def _models() -> Iterator[tuple[str, str, int, datetime]]:
    if server := client.running():
        for told in server.call("GET", "/api/tags")["models"]:
            yield told["name"], told["digest"], told["size"], datetime.fromisoformat(told["modified_at"])
    else:
        for model in config.stores().list():
            yield model.name.short, model.digest, model.size, model.modified_at
