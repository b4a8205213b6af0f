"""What every container of weights is read into."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

from unitvec.models.config import ModelSpec


class Tensors(Mapping[str, npt.NDArray[np.generic]]):
    """Arrays by name, each made when it is asked for and not kept: a model need not be in memory twice.

    Args:
        made: what makes each.
        q8: what makes int8 [rows, width] and float16 [rows, width / Q8_BLOCK], of those that the file has in blocks
            of Q8_BLOCK 8-bit numbers and a scale.
    """

    def __init__(
        self,
        made: Mapping[str, Callable[[], npt.NDArray[np.generic]]],
        q8: Mapping[str, Callable[[], tuple[npt.NDArray[np.int8], npt.NDArray[np.float16]]]] | None = None,
    ) -> None:
        self._made = made
        self.q8 = q8 or {}

    def __getitem__(self, name: str) -> npt.NDArray[np.generic]:
        return self._made[name]()

    def __contains__(self, name: object) -> bool:
        return name in self._made

    def __iter__(self) -> Iterator[str]:
        return iter(self._made)

    def __len__(self) -> int:
        return len(self._made)


@dataclass(frozen=True)
class Details:
    """What people are told about a model (``details`` of ``/api/tags`` and ``/api/show``)."""

    format: str  # "gguf" or "safetensors"
    family: str  # "bert", "gemma3", "qwen3"
    parameter_count: int
    quantization_level: str  # "F32", "F16", "Q8_0"


@dataclass(frozen=True)
class Checkpoint:
    """A model read from its files and not yet loaded.

    Attributes:
        spec: the numbers its graph is built from.
        tensors: its parameters, by their names in the Hugging Face checkpoint.
        make_tokenizer: builds the tokenizer, see there.
        context_length: the most tokens the model can take in, special ones included.
        details: for people.
        model_info: the container's metadata under GGUF's names (``general.architecture``, ...).
        max_length: where its makers cut texts (sentence-transformers' ``max_seq_length``); None where they do not say.
        tensor_list: name, type and shape of each tensor as ``/api/show`` lists them.
    """

    spec: ModelSpec
    tensors: Mapping[str, npt.NDArray[np.generic]]
    make_tokenizer: Callable[[], Tokenizer]
    context_length: int
    details: Details
    model_info: dict[str, Any] = field(default_factory=dict)
    tensor_list: list[dict[str, Any]] = field(default_factory=list)
    max_length: int | None = None

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """Gives ids with special tokens, without truncation and padding; built when first asked for.

        Raises:
            InvalidCheckpoint: what the files say of it is damaged or of a kind that is not supported.
        """
        return self.make_tokenizer()
