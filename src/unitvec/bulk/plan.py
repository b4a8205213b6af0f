"""What a run is to do: equal plans give equal outputs, so that one run may go on with another's work."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import orjson

from unitvec.bulk.inputs import InputFile
from unitvec.errors import InvalidRequest

_FORMAT = 1  # of the parts


@dataclass(frozen=True)
class Settings:
    """What a user has asked for, as far as the parts depend on it.

    Attributes:
        input_format: one of :data:`unitvec.bulk.inputs.KINDS`.
        column: where the text is.
        carry: columns to carry along.
        window: rows of a window.
        dtype: of the vectors: ``float32`` or ``float16``.
        dimensions: cut the vectors to that length and renormalize; 0 leaves them.
        truncate: cut texts that are longer than the context, or refuse them.
        context: tokens a text may have; None for the model's own setting.
    """

    input_format: str
    column: str
    carry: tuple[str, ...] = ()
    window: int = 4096
    dtype: str = "float32"
    dimensions: int = 0
    truncate: bool = True
    context: int | None = None


@dataclass(frozen=True)
class Plan:
    """What goes in and what is done with it.

    Attributes:
        model: its name.
        digest: the model's; see :class:`unitvec.store.model.StoredModel`.
        inputs: the files in order; none for standard input.
        settings: as asked.
    """

    model: str
    digest: str
    inputs: tuple[InputFile, ...]
    settings: Settings

    @property
    def can_resume(self) -> bool:
        """What came through standard input does not come again."""
        return bool(self.inputs)

    def changed_from(self, before: Plan) -> str:
        """What is another than it was before, in words; empty where nothing is. Names of files may differ."""
        if self.digest != before.digest:
            return f"the model was {before.model} {before.digest[:12]} and is {self.model} {self.digest[:12]} now"
        if len(self.inputs) != len(before.inputs):
            return f"the input was {_count(before)} and is {_count(self)} now"
        for now, then in zip(self.inputs, before.inputs, strict=True):
            if (now.size, now.changed, now.digest) != (then.size, then.changed, then.digest):
                return f"{now.path} has changed"
        asked, had = asdict(self.settings), asdict(before.settings)
        for name, value in asked.items():
            if value != had[name]:
                return f"{name.replace('_', ' ')} was {_word(had[name])} and is {_word(value)} now"
        return ""

    def to_json(self) -> bytes:
        """For a file."""
        return orjson.dumps({"format": _FORMAT} | asdict(self), option=orjson.OPT_INDENT_2) + b"\n"

    @classmethod
    def from_json(cls, data: bytes) -> Plan:
        """What :meth:`to_json` wrote.

        Raises:
            ValueError, KeyError, TypeError: it is damaged.
            InvalidRequest: another version wrote it.
        """
        value: dict[str, Any] = orjson.loads(data)
        if value["format"] != _FORMAT:
            raise InvalidRequest("the unfinished work is another version's: begin anew with --restart")
        settings = value["settings"]
        return cls(
            value["model"],
            value["digest"],
            tuple(InputFile(**file) for file in value["inputs"]),
            Settings(**settings | {"carry": tuple(settings["carry"])}),
        )


def _count(plan: Plan) -> str:
    return f"{len(plan.inputs)} file{'s' * (len(plan.inputs) != 1)}" if plan.inputs else "standard input"


def _word(value: object) -> str:
    return ", ".join(map(str, value)) or "none" if isinstance(value, tuple) else str(value)
