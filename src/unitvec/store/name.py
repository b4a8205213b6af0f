"""Names of models, as Ollama reads them.

The grammar, from the right::

    name  = [[[scheme "://"] host "/"] namespace "/"] model [":" tag]

host may hold ``.`` and ``:`` after its first character, model and tag ``.``, all of them ``-``; every part begins
with a letter, a digit or ``_``. So no part can be ``..``, be empty, or hold a separator: a name is a safe path.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import PurePath, PurePosixPath

from unitvec.errors import InvalidRequest

DEFAULT_HOST = "registry.ollama.ai"
DEFAULT_NAMESPACE = "library"
DEFAULT_TAG = "latest"
DEFAULT_SCHEME = "https"

_HOST = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:-]{0,349}")
_NAMESPACE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,79}")
_MODEL = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,79}")


@dataclass(frozen=True, eq=False)
class Name:
    """A model's full name. Names that differ in case only are equal; ``scheme`` is how to ask its host, not part of it.

    Raises:
        InvalidRequest: a part breaks the grammar.
    """

    host: str
    namespace: str
    model: str
    tag: str
    scheme: str = field(default=DEFAULT_SCHEME, repr=False)

    def __post_init__(self) -> None:
        if not (
            _HOST.fullmatch(self.host)
            and _NAMESPACE.fullmatch(self.namespace)
            and _MODEL.fullmatch(self.model)
            and _MODEL.fullmatch(self.tag)
        ):
            raise InvalidRequest("invalid model name")

    @classmethod
    def parse(cls, text: str) -> Name:
        """Reads a name; what is left out has Ollama's defaults.

        Raises:
            InvalidRequest: ``invalid model name``.
        """
        tag = DEFAULT_TAG
        if text.rfind(":") > text.rfind("/"):  # else the colon is a port's or a scheme's
            text, _, tag = text.rpartition(":")
        rest, slash, model = text.rpartition("/")
        if not slash:
            return cls(DEFAULT_HOST, DEFAULT_NAMESPACE, model, tag)
        rest, slash, namespace = rest.rpartition("/")
        if not slash:
            return cls(DEFAULT_HOST, namespace, model, tag)
        scheme, separator, host = rest.partition("://")
        return cls(host, namespace, model, tag, scheme) if separator else cls(rest, namespace, model, tag)

    @classmethod
    def from_path(cls, path: PurePath) -> Name:
        """The reverse of ``path``.

        Raises:
            InvalidRequest: it is not four valid parts.
        """
        if len(path.parts) != 4:
            raise InvalidRequest("invalid model name")
        return cls(*path.parts)

    @property
    def path(self) -> PurePosixPath:
        """Where it lies in a store: ``HOST/NAMESPACE/MODEL/TAG``."""
        return PurePosixPath(self.host, self.namespace, self.model, self.tag)

    @property
    def repository(self) -> str:
        """What a registry calls it: ``NAMESPACE/MODEL``."""
        return f"{self.namespace}/{self.model}"

    @property
    def has_default_host(self) -> bool:
        """Whether it belongs to Ollama's registry."""
        return self.host.lower() == DEFAULT_HOST

    @property
    def short(self) -> str:
        """As people are shown it: without the host and namespace that are the defaults, always with the tag."""
        if not self.has_default_host:
            return str(self)
        if self.namespace.lower() != DEFAULT_NAMESPACE:
            return f"{self.namespace}/{self.model}:{self.tag}"
        return f"{self.model}:{self.tag}"

    def __str__(self) -> str:
        return f"{self.host}/{self.namespace}/{self.model}:{self.tag}"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Name) and str(self).lower() == str(other).lower()

    def __hash__(self) -> int:
        return hash(str(self).lower())
