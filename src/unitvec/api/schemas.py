"""Requests: from bytes to typed values, or to an error that says what is wrong."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any, NoReturn

import orjson

from unitvec.api.values import check_options, integer_option, parse_keep_alive, type_name
from unitvec.errors import InvalidRequest, ModelNotFound
from unitvec.store.name import Name

# Bounds on a large body's structure: as objects it takes up to thirty times its bytes, and seconds.
_SMALL = 64 << 10  # bytes of a body that is not looked at
_FEW = 50_000  # characters that may be structure: too few to matter
_MOST_FIELDS = 1_000
_MOST_VALUES = 1_000_000
_STRING = re.compile(rb'"(?:[^"\\]++|\\.?+)*+"?', re.DOTALL)  # possessive: one pass, whether it is closed or not
_GZIP = b"\x1f\x8b"
_HALF = re.compile("[\ud800-\udfff]")
_LONE_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")


def decode(body: bytes) -> dict[str, Any]:
    """The fields of a JSON object, their names in lower case (names ignore case; the last of two wins).

    Raises:
        InvalidRequest: no body, not JSON, or not an object.
    """
    if not body.strip():
        raise InvalidRequest("missing request body")
    if body.startswith(_GZIP):
        raise InvalidRequest("the request body is compressed: send it as it is")
    _check_structure(body)
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        if not _LONE_SURROGATE.search(body):
            raise InvalidRequest(f"invalid JSON: {error}") from None
        value = _decode_surrogates(body)
    if value is None:  # as good as {}
        return {}
    if not isinstance(value, dict):
        raise InvalidRequest(f"the request body must be a JSON object, not {type_name(value)}")
    return {key.lower(): item for key, item in value.items()}


def _check_structure(body: bytes) -> None:
    if len(body) <= _SMALL or sum(map(body.count, (b",", b":", b"[", b"{"))) <= _FEW:
        return
    # Quotes within a string are escaped, so this counts each string once or twice.
    if body.count(b'"') - body.count(b'\\"') <= 2 * _MOST_VALUES:
        bare = _STRING.sub(b"", body)
        if bare.count(b":") > _MOST_FIELDS:
            raise InvalidRequest(f"the request has more than {_MOST_FIELDS} fields")
        if sum(map(bare.count, (b",", b"[", b"{"))) <= _MOST_VALUES:
            return
    raise InvalidRequest(f"the request has more than {_MOST_VALUES} values: send several requests")


def _decode_surrogates(body: bytes) -> Any:
    """JSON with halves of UTF-16 pairs in it, which JavaScript cuts out of strings; each becomes U+FFFD."""

    def refuse(constant: str) -> NoReturn:
        raise InvalidRequest(f"invalid JSON: {constant} is no JSON number")

    try:
        value = json.loads(body, parse_constant=refuse)
        return orjson.loads(_HALF.sub("\ufffd", json.dumps(value, ensure_ascii=False)))  # pairs are whole by now
    except (ValueError, RecursionError) as error:
        raise InvalidRequest(f"invalid JSON: {error}") from None


def field(fields: dict[str, Any], key: str, kind: type, wanted: str) -> Any:
    """A field of a JSON type, None where it is absent or null."""
    value = fields.get(key)
    if value is None or (isinstance(value, kind) and (kind is bool or not isinstance(value, bool))):
        return value
    raise InvalidRequest(f'"{key}" must be {wanted}, not {type_name(value)}{_shown(value)}')


def _shown(value: Any) -> str:
    return f" ({value})" if isinstance(value, int | float) and not isinstance(value, bool) else ""


def model_name(fields: dict[str, Any], *keys: str) -> str:
    """The first of ``keys`` that names a model, ``""`` where none does."""
    names = [field(fields, key, str, "a string") for key in keys]
    return next((str(name) for name in names if name), "")


def parse_name(text: str) -> Name:
    """A model's name; an empty one is a model that is not there."""
    if not text:
        raise ModelNotFound("model '' not found")
    return Name.parse(text)


@dataclass(frozen=True)
class EmbedRequest:
    """``POST /api/embed``. See :meth:`unitvec.serving.service.Service.embed` for what the fields mean."""

    model: str  # as it was sent: the answer repeats it
    name: Name
    texts: list[str]
    truncate: bool
    dimensions: int
    keep_alive: float | None
    context: int | None

    @classmethod
    def parse(cls, body: bytes) -> EmbedRequest:
        """Read a body; the order of the checks is Ollama's.

        Raises:
            InvalidRequest, ModelNotFound: with the texts that Ollama answers.
        """
        fields = decode(body)
        model = model_name(fields, "model")
        truncate = field(fields, "truncate", bool, "a boolean")
        dimensions = field(fields, "dimensions", int, "an integer") or 0
        keep_alive = parse_keep_alive(fields.get("keep_alive"))
        options = field(fields, "options", dict, "an object") or {}
        name = parse_name(model)
        texts = _texts(fields.get("input"))
        check_options(options)
        return cls(
            model, name, texts, truncate is not False, dimensions, keep_alive, integer_option(options, "num_ctx")
        )


@dataclass(frozen=True)
class EmbeddingsRequest:
    """``POST /api/embeddings``, the older form: one text, never cut."""

    model: str
    name: Name
    prompt: str
    keep_alive: float | None
    context: int | None

    @classmethod
    def parse(cls, body: bytes) -> EmbeddingsRequest:
        """As :meth:`EmbedRequest.parse`."""
        fields = decode(body)
        model = model_name(fields, "model")
        prompt = field(fields, "prompt", str, "a string") or ""
        keep_alive = parse_keep_alive(fields.get("keep_alive"))
        options = field(fields, "options", dict, "an object") or {}
        name = parse_name(model)
        check_options(options)
        return cls(model, name, prompt, keep_alive, integer_option(options, "num_ctx"))


def _texts(value: Any) -> list[str]:
    match value:
        case None | "":
            return []
        case str():
            return [value]
        case list() if all(isinstance(text, str) for text in value):
            return value
    raise InvalidRequest("invalid input type")
