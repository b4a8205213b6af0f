"""What is sent and what comes back, for each kind of server."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson

from unitvec.errors import UnitvecError

FloatArray = npt.NDArray[np.float32]


class BadAnswer(UnitvecError):
    """An answer of status 200 that is none."""


@dataclass(frozen=True)
class Protocol:
    """One API.

    Attributes:
        path: where texts are posted.
        fields: the request's JSON for a model and texts.
        vectors: the vectors in an answer's JSON, in the order of the texts.
        tokens: how many tokens the server says it ran, from the answer's JSON and headers; None if it does not say.
    """

    path: str
    fields: Callable[[str, list[str]], dict[str, Any]]
    vectors: Callable[[Any], list[list[float]]]
    tokens: Callable[[Any, Mapping[bytes, bytes]], int | None]

    def request(self, model: str, texts: list[str]) -> bytes:
        """The body of a request."""
        return orjson.dumps(self.fields(model, texts))

    def answer(self, body: bytes, headers: Mapping[bytes, bytes]) -> tuple[FloatArray, int | None]:
        """An answer's vectors, float32 [texts, width], and its count of tokens.

        Raises:
            BadAnswer: it is no JSON, lacks something, or its vectors differ in length or hold no numbers.
        """
        try:
            fields = orjson.loads(body)
            vectors = np.array(self.vectors(fields), np.float32)
            tokens = self.tokens(fields, headers)
        except (ValueError, TypeError, KeyError, IndexError) as error:
            raise BadAnswer(f"not an answer of this kind of server: {body[:80]!r}") from error
        if vectors.ndim != 2 or not np.isfinite(vectors).all():
            raise BadAnswer(f"vectors of unequal length, or with null or infinity in them: {body[:80]!r}")
        return vectors, tokens


def error_message(body: bytes) -> str:
    """What an error answer says, in one short line."""
    try:
        fields = orjson.loads(body)
        found = fields.get("error") or fields.get("detail") or fields.get("message")
        text = found.get("message") if isinstance(found, dict) else found
    except (ValueError, AttributeError):
        text = body.decode("utf-8", "replace")
    return " ".join(str(text).split())[:120]


def _openai_vectors(fields: Any) -> list[list[float]]:
    return [item["embedding"] for item in sorted(fields["data"], key=lambda item: item["index"])]


def _tei_tokens(_: Any, headers: Mapping[bytes, bytes]) -> int | None:
    count = headers.get(b"x-compute-tokens")
    return None if count is None else int(count)


PROTOCOLS = {
    "ollama": Protocol(
        path="/api/embed",
        fields=lambda model, texts: {"model": model, "input": texts},
        vectors=lambda fields: fields["embeddings"],
        tokens=lambda fields, _: fields.get("prompt_eval_count"),
    ),
    "openai": Protocol(
        path="/v1/embeddings",
        fields=lambda model, texts: {"model": model, "input": texts, "encoding_format": "float"},
        vectors=_openai_vectors,
        tokens=lambda fields, _: (fields.get("usage") or {}).get("prompt_tokens"),
    ),
    "tei": Protocol(
        path="/embed",
        fields=lambda _, texts: {"inputs": texts, "truncate": True},
        vectors=lambda fields: fields,
        tokens=_tei_tokens,
    ),
}
