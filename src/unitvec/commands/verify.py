"""``unitvec verify``."""

from __future__ import annotations

from importlib import resources

import click
import numpy as np
import orjson

from unitvec import config, human
from unitvec.errors import InvalidCheckpoint
from unitvec.store.name import Name

_AGREES = 0.99  # quantized weights on another engine come this near, other weights or pooling don't


@click.command()
@click.argument("model")
def command(model: str) -> None:
    """Read all of MODEL's files and compare their digests; compare a vector with the reference's where it is known."""
    name = Name.parse(model)
    stores = config.stores()
    stored = stores.verify(name, lambda digest, size: click.echo(f"ok  {digest[7:19]}  {human.size(size)}"))
    known = orjson.loads(resources.files("unitvec").joinpath("data/vectors.json").read_bytes())
    reference = {Name.parse(key): vector for key, vector in known["vectors"].items()}.get(name)
    if reference is None:
        click.echo(f"{stored.name.short}: all files are whole; there is no reference vector to compare with")
        return
    from unitvec.local import Model

    with Model(model) as loaded:
        vector = loaded.embed(known["text"])[0]
    expected = np.asarray(reference, np.float64)
    if expected.shape != vector.shape:
        raise InvalidCheckpoint(f"{name.short} gives {len(vector)} numbers a text, the reference {len(expected)}")
    cosine = float(vector @ expected / np.linalg.norm(expected))
    if cosine < _AGREES:
        raise InvalidCheckpoint(f"{name.short} gives another vector than the reference: cosine {cosine:.5f}")
    click.echo(f"{stored.name.short}: all files are whole, and its vectors are right (cosine {cosine:.5f})")
