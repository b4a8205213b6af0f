"""Modelfiles: what a new model is made of, in Ollama's little language.

Lines of ``INSTRUCTION value``; a value in three double quotes may go over several lines, ``#`` begins a comment.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

from unitvec.errors import InvalidRequest

_LINE = re.compile(r'[ \t]*(\w+)[ \t]+(?:"""(.*?)"""|([^\n]*))[ \t]*(?:\n|\Z)', re.DOTALL)
_BLANK = re.compile(r"[ \t]*(?:#[^\n]*)?(?:\n|\Z)")
_LISTS = {"stop"}


@dataclass
class Modelfile:
    """A Modelfile's instructions."""

    base: str = ""
    parameters: dict[str, Any] = field(default_factory=dict)
    template: str = ""
    system: str = ""
    licenses: list[str] = field(default_factory=list)

    @classmethod
    def parse(cls, text: str) -> Modelfile:
        """Reads one.

        Raises:
            InvalidRequest: the message says which line is wrong.
        """
        made, at = cls(), 0
        while at < len(text):
            if blank := _BLANK.match(text, at):
                at = max(blank.end(), at + 1)
                continue
            line = _LINE.match(text, at)
            number = text.count("\n", 0, at) + 1
            if line is None:
                raise InvalidRequest(f"Modelfile line {number}: an instruction and its value are wanted")
            instruction, quoted, plain = line.groups()
            value = quoted if quoted is not None else _unquoted(plain)
            try:
                made._take(instruction.lower(), value)
            except ValueError as error:
                raise InvalidRequest(f"Modelfile line {number}: {error}") from None
            at = line.end()
        if not made.base:
            raise InvalidRequest("no FROM line")
        return made

    def _take(self, instruction: str, value: str) -> None:
        match instruction:
            case "from":
                self.base = value
            case "template":
                self.template = value
            case "system":
                self.system = value
            case "license":
                self.licenses.append(value)
            case "parameter":
                key, _, setting = value.partition(" ")
                if not setting.strip():
                    raise ValueError(f"PARAMETER {key} has no value")
                if key in _LISTS:
                    self.parameters.setdefault(key, []).append(_unquoted(setting))
                else:
                    self.parameters[key] = _number(_unquoted(setting))
            case _:
                raise ValueError(f"{instruction.upper()} is not supported")


def _unquoted(text: str) -> str:
    text = text.strip()
    return text[1:-1] if len(text) > 1 and text[0] == text[-1] == '"' else text


def _number(text: str) -> Any:
    if text in ("true", "false"):
        return text == "true"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
