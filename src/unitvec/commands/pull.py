"""``unitvec pull``."""

from __future__ import annotations

import click

from unitvec import config
from unitvec.commands import client
from unitvec.commands.progress import reporter
from unitvec.commands.source import source_option
from unitvec.store.name import Name


@click.command()
@click.argument("model")
@click.option("--insecure", is_flag=True, help="Allow plain HTTP, and certificates that nobody vouches for.")
@source_option
def command(model: str, insecure: bool, source: str | None) -> None:
    """Fetch MODEL, or what has changed of it.

    \b
    all-minilm, all-minilm:22m       from Ollama's registry
    hf.co/USER/REPOSITORY[:QUANT]    from Hugging Face
    HOST[:PORT]/NAMESPACE/MODEL      from any registry
    """
    name = Name.parse(model)
    with reporter() as report:
        if server := client.running():
            server.stream("/api/pull", {"model": model, "insecure": insecure, "source": source}, report)
        else:
            config.stores().pull(name, report, source, insecure=insecure)
