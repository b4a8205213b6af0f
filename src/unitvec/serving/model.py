"""A model in memory: texts in, token ids to be run, vectors out."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from unitvec import pages
from unitvec.checkpoint.checkpoint import Checkpoint
from unitvec.engine import memory, onnx
from unitvec.engine.lanes import Lanes, engines
from unitvec.engine.onnx import FloatArray
from unitvec.engine.processor import multiplies_int8
from unitvec.errors import InvalidRequest, TextTooLong
from unitvec.models.config import Dtype, ModelSpec, parse_dtype
from unitvec.models.plans import PLANS
from unitvec.serving.batcher import Ids

log = logging.getLogger("unitvec.model")

TOO_LONG = "the input length exceeds the context length"
NO_ROOM = "input after truncation exceeds maximum context length"
NO_CONTEXT = "input exceeds maximum context length and cannot be truncated further"

_AT_ONCE = 1_000_000  # characters
_SMALL = 64_000_000  # parameters of the layers, of which there may be two copies in memory


def weight_bytes(
    checkpoint: Checkpoint, *, threads: int, workers: int, cache_dir: Path | None, dtype: Dtype = "float32"
) -> int:
    """About how many bytes of memory a model's weights will take; the arguments as for :class:`LoadedModel`."""
    copies = engines(threads, workers, small=_is_small(checkpoint))
    return copies * onnx.weight_bytes(_planned(checkpoint.spec, _possible(dtype)), cache_dir)


def _possible(dtype: Dtype) -> Dtype:
    if dtype == "int8" and not multiplies_int8():
        log.warning("this processor is not faster in int8, or not exact: models run in float32")
        return "float32"
    return dtype


def _planned(spec: ModelSpec, dtype: Dtype) -> ModelSpec:
    return replace(spec, plan=PLANS[type(spec.transformer)]) if dtype == "int8" else spec


def _is_small(checkpoint: Checkpoint) -> bool:
    sizes = checkpoint.spec.transformer
    return checkpoint.details.parameter_count - sizes.vocab_size * sizes.hidden_size <= _SMALL


class LoadedModel:
    """One model, ready to run.

    Args:
        checkpoint: its files, read.
        threads: cores of each micro-batch.
        workers: micro-batches that run at a time.
        cache_dir: where built graphs are kept.
        dtype: what it computes in, if the processor is faster in that.

    Attributes:
        dtype: what it does compute in.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        *,
        threads: int,
        workers: int = 1,
        cache_dir: Path | None,
        dtype: Dtype = "float32",
    ) -> None:
        self.dtype: Dtype = _possible(dtype)
        self.lanes = Lanes(
            _planned(checkpoint.spec, self.dtype),
            checkpoint.tensors,
            threads=threads,
            workers=workers,
            small=_is_small(checkpoint),
            cache_dir=cache_dir,
        )
        pages.collect()
        before = pages.resident()
        self._tokenizer = tokenizer = checkpoint.tokenizer
        # What they were made from is not needed any more: a vocabulary in Python takes tens of MB.
        self.checkpoint = replace(checkpoint, tensors={}, make_tokenizer=lambda: tokenizer)
        del checkpoint
        pages.trim()
        self._tokenizer_bytes = max(0, pages.resident() - before)
        # Special tokens stand around a text: as many before it as there are before a letter, the rest behind.
        mask = self._tokenizer.encode("a").special_tokens_mask
        vocabulary = self.checkpoint.spec.transformer.vocab_size
        self._vocabulary = vocabulary if self._tokenizer.get_vocab_size() > vocabulary else None
        self._before = mask.index(0) if 0 in mask else len(mask)
        self._behind = sum(mask) - self._before

    @property
    def width(self) -> int:
        """The length of its vectors."""
        return self.checkpoint.spec.embedding_length

    @property
    def bytes(self) -> int:
        """Memory that its weights and its tokenizer take."""
        return self.lanes.resident_bytes + self._tokenizer_bytes

    def footprint(self, texts: int, longest: int, tokens: int) -> int:
        """See :func:`unitvec.engine.memory.footprint`."""
        return memory.footprint(self.checkpoint.spec, texts, longest, tokens)

    def run(self, ids: Sequence[Ids], alone: bool = False) -> FloatArray:
        """See :meth:`unitvec.engine.lanes.Lanes.run`."""
        return self.lanes.run(ids, alone=alone)

    def encode(self, texts: Sequence[str], context: int, *, truncate: bool) -> list[Ids]:
        """Token ids of each text, special tokens included, cut to ``context`` tokens.

        Raises:
            InvalidRequest: a text is longer and ``truncate`` is false, or the context has no room for any text.
        """
        found = self.encode_each(texts, context, truncate=truncate)
        for refusal in found:
            if isinstance(refusal, InvalidRequest):
                raise refusal
        return [ids for ids in found if isinstance(ids, tuple)]

    def encode_each(self, texts: Sequence[str], context: int, *, truncate: bool) -> list[Ids | InvalidRequest]:
        """As :meth:`encode`, with the error of a text in the place of its ids.

        Raises:
            InvalidRequest: the context has no room for any text.
        """
        self._check(context)
        if len(texts) == 1:
            return [self._fit_or_refuse(self._tokenizer.encode(_without_surrogates(texts[0])).ids, context, truncate)]
        ids: list[Ids | InvalidRequest] = []
        for part in _parts(texts):
            encodings = self._tokenizer.encode_batch_fast([_without_surrogates(text) for text in part])
            ids += [self._fit_or_refuse(encoding.ids, context, truncate) for encoding in encodings]
        return ids

    def cut(self, ids: Sequence[int], context: int, *, truncate: bool) -> Ids:
        """As :meth:`encode` for a text that is token ids already, special ones included.

        Raises:
            InvalidRequest: as there; or there are no ids, or some that the model does not have.
        """
        self._check(context)
        vocabulary = self.checkpoint.spec.transformer.vocab_size
        if not ids or min(ids) < 0 or max(ids) >= vocabulary:
            raise InvalidRequest(f"token ids must be between 0 and {vocabulary - 1}, at least one a text")
        return self._fit(ids, context, truncate)

    def _check(self, context: int) -> None:
        if context <= 0:
            raise InvalidRequest(NO_CONTEXT)
        if context <= self._before + self._behind:
            raise InvalidRequest(NO_ROOM)

    def _fit_or_refuse(self, ids: Sequence[int], context: int, truncate: bool) -> Ids | InvalidRequest:
        try:
            return self._fit(ids, context, truncate)
        except InvalidRequest as refusal:
            return refusal

    def _fit(self, ids: Sequence[int], context: int, truncate: bool) -> Ids:
        if not ids:  # a model without begin and end tokens
            raise InvalidRequest("a text of no tokens cannot be embedded by this model")
        if self._vocabulary and max(ids) >= self._vocabulary:  # of a tokenizer that knows more tokens than the model
            raise InvalidRequest(f"the model has no embedding for the token {self._tokenizer.id_to_token(max(ids))!r}")
        if len(ids) <= context:
            return tuple(ids)
        if not truncate:
            raise TextTooLong(TOO_LONG)
        return (*ids[: context - self._behind], *ids[len(ids) - self._behind :])


def _parts(texts: Sequence[str]) -> Iterator[Sequence[str]]:
    """Some texts at a time: what a tokenizer tells of a text takes fifty times the memory of its ids."""
    begin = characters = 0
    for end, text in enumerate(texts):
        if characters > _AT_ONCE:
            yield texts[begin:end]
            begin, characters = end, 0
        characters += len(text)
    yield texts[begin:]


def _without_surrogates(text: str) -> str:
    """Halves of UTF-16 pairs, which no encoding can hold, become U+FFFD."""
    return text if text.isascii() else text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def context_limit(model: LoadedModel, parameters: Mapping[str, Any], asked: int | None, default: int) -> int:
    """Tokens that a text is cut to: as asked, else the model's parameter, else the default, but where its makers cut.

    Never more than the model can.
    """
    checkpoint = model.checkpoint
    wanted = asked if asked is not None else parameters.get("num_ctx")
    if wanted is None:
        wanted = min(default, checkpoint.max_length or default)
    return min(checkpoint.context_length, int(wanted))


def chosen_dtype(parameters: Mapping[str, Any], asked: Dtype | None) -> Dtype:
    """What a model is to compute in: as asked, else its parameter, else float32.

    Raises:
        InvalidRequest: its parameter is none of them.
    """
    return asked or parse_dtype(parameters.get("dtype", "float32"))


def finish(vectors: FloatArray, dimensions: int) -> FloatArray:
    """Cut to ``dimensions`` if that is between 1 and the vectors' length, and make each of unit length.

    A null vector stays null, as with torch's ``normalize``: x / max(|x|, 1e-12).

    Args:
        vectors: float32 [texts, width].
        dimensions: the wanted length; any other number leaves it as it is.

    Returns:
        float32 [texts, dimensions or width], contiguous.
    """
    if 0 < dimensions < vectors.shape[1]:
        vectors = vectors[:, :dimensions]
    length = np.sqrt(np.einsum("ij,ij->i", vectors, vectors, dtype=np.float64))
    unit: FloatArray = (vectors / np.maximum(length, 1e-12)[:, None]).astype(np.float32)
    return unit
