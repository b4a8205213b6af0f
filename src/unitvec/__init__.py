"""An embedding server that speaks Ollama's API."""

from __future__ import annotations

from importlib.metadata import version
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from unitvec.local import Model
    from unitvec.models.config import Dtype

__version__ = version("unitvec")
__all__ = ["__version__", "load"]


def load(name: str, *, dtype: Dtype | None = None) -> Model:
    """A model for use in this process: ``unitvec.load("all-minilm").embed(["a text"])``.

    Args:
        name: as on the command line. A model that is not at hand is fetched.
        dtype: "int8" computes in 8 bits, docs/int8.md; "float32" exactly; None for the model's own setting.

    Raises:
        unitvec.errors.UnitvecError: the name is none, or the model cannot be had or run.
    """
    from unitvec.local import Model

    return Model(name, dtype=dtype)
