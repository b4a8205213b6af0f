"""A model's manifest: which blobs it is made of, in the registry's JSON (Docker image manifest, schema 2)."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import orjson

from unitvec.errors import InvalidCheckpoint

MEDIA_TYPE = "application/vnd.docker.distribution.manifest.v2+json"
CONFIG = "application/vnd.docker.container.image.v1+json"
MODEL = "application/vnd.ollama.image.model"
PARAMS = "application/vnd.ollama.image.params"
TEMPLATE = "application/vnd.ollama.image.template"
PROMPT = "application/vnd.ollama.image.prompt"  # what TEMPLATE was called once
SYSTEM = "application/vnd.ollama.image.system"
LICENSE = "application/vnd.ollama.image.license"

MAX_SIZE = 4 << 20  # bytes of a manifest; real ones have a few hundred

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


def digest_of(data: bytes) -> str:
    """``sha256:HEX`` of some bytes."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def is_digest(text: object) -> bool:
    """Whether this is ``sha256:HEX``, and so safe as part of a path or a URL."""
    return isinstance(text, str) and _DIGEST.fullmatch(text) is not None


@dataclass(frozen=True)
class Layer:
    """A blob that a model needs.

    Attributes:
        media_type: what it is for.
        digest: ``sha256:HEX``.
        size: its bytes.
        origin: the model or file it was made from; ``from`` in the JSON.
    """

    media_type: str
    digest: str
    size: int
    origin: str = ""

    @classmethod
    def from_json(cls, value: Any) -> Layer:
        """Reads a layer's JSON object; ValueError where it is none."""
        match value:
            case {"mediaType": str(media_type), "digest": digest, "size": int(size)} if is_digest(digest) and size >= 0:
                origin = value.get("from")
                return cls(media_type, digest, size, origin if isinstance(origin, str) else "")
        raise ValueError(f"not a layer: {str(value)[:200]}")

    def to_json(self) -> dict[str, str | int]:
        """Its JSON object, the keys in Ollama's order."""
        value: dict[str, str | int] = {"mediaType": self.media_type, "digest": self.digest, "size": self.size}
        return value | ({"from": self.origin} if self.origin else {})


@dataclass(frozen=True)
class Manifest:
    """A manifest and the very bytes it was read from: their digest is the model's."""

    config: Layer | None
    layers: tuple[Layer, ...]
    data: bytes

    @classmethod
    def parse(cls, data: bytes) -> Manifest:
        """Reads a manifest.

        Raises:
            InvalidCheckpoint: it is cut off, or no manifest of a model.
        """
        try:
            value = orjson.loads(data)
            if not isinstance(value, dict):
                raise ValueError("not a JSON object")
            config = value.get("config")
            # Ollama writes an empty object where there is no config
            known = Layer.from_json(config) if isinstance(config, dict) and config.get("digest") else None
            layers = tuple(Layer.from_json(layer) for layer in value.get("layers") or ())
        except (ValueError, TypeError) as error:
            raise InvalidCheckpoint(f"damaged manifest: {error}") from None
        if not layers:
            raise InvalidCheckpoint("damaged manifest: it names no layers")
        return cls(known, layers, data)

    @classmethod
    def build(cls, config: Layer, layers: Iterable[Layer]) -> Manifest:
        """A new manifest, byte for byte as Ollama writes one."""
        listed = tuple(layers)
        value = {
            "schemaVersion": 2,
            "mediaType": MEDIA_TYPE,
            "config": config.to_json(),
            "layers": [layer.to_json() for layer in listed],
        }
        return cls(config, listed, orjson.dumps(value, option=orjson.OPT_APPEND_NEWLINE))

    @property
    def blobs(self) -> tuple[Layer, ...]:
        """All that it needs, each blob once, in the order they are pulled."""
        needed = (*self.layers, self.config) if self.config else self.layers
        return tuple({layer.digest: layer for layer in needed}.values())

    @property
    def size(self) -> int:
        """Bytes of all layers and the config."""
        return sum(layer.size for layer in self.layers) + (self.config.size if self.config else 0)

    @property
    def digest(self) -> str:
        """64 hexadecimal digits."""
        return hashlib.sha256(self.data).hexdigest()

    def of_type(self, *media_types: str) -> list[Layer]:
        """The layers of a kind."""
        return [layer for layer in self.layers if layer.media_type in media_types]
