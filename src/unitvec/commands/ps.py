"""``unitvec ps``."""

from __future__ import annotations

from datetime import UTC, datetime

import click

from unitvec import human
from unitvec.commands import client, table


@click.command()
@click.argument("prefix", default="")
def command(prefix: str) -> None:
    """List the models that a running server has in memory."""
    now = datetime.now(UTC)
    rows = []
    for model in client.server().call("GET", "/api/ps")["models"]:
        if model["name"].startswith(prefix):
            expires = datetime.fromisoformat(model["expires_at"])
            until = human.moment(expires, now) if expires > now else "Stopping..."
            size, context = human.size(model["size"]), str(model.get("context_length", ""))
            rows.append((model["name"], model["digest"][:12], size, _processor(model), context, until))
    table.echo([("NAME", "ID", "SIZE", "PROCESSOR", "CONTEXT", "UNTIL"), *rows])


def _processor(model: dict[str, int]) -> str:
    if not model["size_vram"]:
        return "100% CPU"
    share = round(100 * model["size_vram"] / model["size"])
    return "100% GPU" if share >= 100 else f"{100 - share}%/{share}% CPU/GPU"
