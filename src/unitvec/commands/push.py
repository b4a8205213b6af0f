"""``unitvec push``."""

from __future__ import annotations

import click

from unitvec import config
from unitvec.commands import client
from unitvec.commands.progress import reporter
from unitvec.store.name import Name


@click.command()
@click.argument("model")
@click.option("--insecure", is_flag=True, help="Allow plain HTTP, and certificates that nobody vouches for.")
def command(model: str, insecure: bool) -> None:
    """Send MODEL to the registry of its name: HOST[:PORT]/NAMESPACE/MODEL."""
    name = Name.parse(model)
    with reporter() as report:
        if server := client.running():
            server.stream("/api/push", {"model": model, "insecure": insecure}, report)
        else:
            from unitvec.store.push import push

            push(name, config.stores(), report, insecure=insecure)
