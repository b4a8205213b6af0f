"""``unitvec verify``."""

from __future__ import annotations

from importlib import resources
from typing import TYPE_CHECKING, get_args

import click
import numpy as np
import orjson

from unitvec import config, human
from unitvec.errors import InvalidCheckpoint, UnitvecError
from unitvec.models.config import Dtype
from unitvec.store.name import Name

if TYPE_CHECKING:
    from unitvec.local import Model

_AGREES = 0.99  # quantized weights on another engine come this near, other weights or pooling don't


@click.command()
@click.argument("model")
@click.option(
    "--dtype",
    type=click.Choice(get_args(Dtype)),
    default="float32",
    show_default=True,
    help="int8: also measure what that mode keeps of 2,000 texts' vectors and of their ranking; takes minutes.",
)
def command(model: str, dtype: Dtype) -> None:
    """Read all of MODEL's files and compare their digests; compare a vector with the reference's where it is known."""
    name = Name.parse(model)
    stores = config.stores()
    stored = stores.verify(name, lambda digest, size: click.echo(f"ok  {digest[7:19]}  {human.size(size)}"))
    known = orjson.loads(resources.files("unitvec").joinpath("data/vectors.json").read_bytes())
    reference = {Name.parse(key): vector for key, vector in known["vectors"].items()}.get(name)
    if reference is None and dtype == "float32":
        click.echo(f"{stored.name.short}: all files are whole; there is no reference vector to compare with")
        return
    from unitvec.local import Model

    with Model(model, dtype="float32") as loaded:
        if reference is not None:
            _compare(name, loaded, known["text"], np.asarray(reference, np.float64))
        if dtype == "int8":
            _promise(model, loaded)


def _compare(name: Name, loaded: Model, text: str, expected: np.ndarray[tuple[int], np.dtype[np.float64]]) -> None:
    vector = loaded.embed(text)[0]
    if expected.shape != vector.shape:
        raise InvalidCheckpoint(f"{name.short} gives {len(vector)} numbers a text, the reference {len(expected)}")
    cosine = float(vector @ expected / np.linalg.norm(expected))
    if cosine < _AGREES:
        raise InvalidCheckpoint(f"{name.short} gives another vector than the reference: cosine {cosine:.5f}")
    click.echo(f"{name.short}: all files are whole, and its vectors are right (cosine {cosine:.5f})")


def _promise(model: str, exact: Model) -> None:
    from unitvec import promise
    from unitvec.local import Model

    with Model(model, dtype="int8") as other:
        if other.dtype != "int8":
            raise UnitvecError("this processor is not faster in int8, or not exact: models run in float32 here")
        kept = promise.measure(exact, other)
    click.echo(f"int8, {kept}")
    if not kept.holds:
        raise UnitvecError(f"{model} does not keep what int8 promises: run it in float32")
