"""Values as Ollama writes them in JSON: durations, options, and what a wrong type is called.

The rules, and the texts of the errors, are those of its server (Go's ``encoding/json`` and ``time.ParseDuration``).
"""

from __future__ import annotations

import math
import re
from typing import Any

from unitvec.errors import InvalidRequest

_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_PART = re.compile(r"([0-9]+\.?[0-9]*|\.[0-9]+)([^0-9.]*)")
_LONGEST = (2**63 - 1) / 1e9  # Go counts nanoseconds in 64 bits

_INTEGERS = {
    "num_ctx", "num_batch", "num_gpu", "main_gpu", "num_thread", "draft_num_predict",
    "num_keep", "seed", "num_predict", "top_k", "repeat_last_n",
}  # fmt: skip
_FLOATS = {"top_p", "min_p", "typical_p", "temperature", "repeat_penalty", "presence_penalty", "frequency_penalty"}


def type_name(value: object) -> str:
    """What JSON calls the type of a decoded value."""
    match value:
        case None:
            return "null"
        case bool():
            return "a boolean"
        case int() | float():
            return "a number"
        case str():
            return "a string"
        case list():
            return "an array"
    return "an object"


def parse_duration(text: str) -> float:
    """Seconds of a Go duration: ``300ms``, ``-1.5h``, ``2h45m``, or ``0``; a negative one is for ever.

    Raises:
        InvalidRequest: with the text of Go's ``time.ParseDuration``.
    """
    quoted = '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
    invalid = InvalidRequest(f"time: invalid duration {quoted}")
    rest = text[1:] if text[:1] in ("+", "-") else text
    if rest == "0":
        return 0.0
    seconds, end = 0.0, 0
    while end < len(rest):
        part = _PART.match(rest, end)
        if part is None:
            raise invalid
        number, unit = part.groups()
        if not unit:
            raise InvalidRequest(f"time: missing unit in duration {quoted}")
        if unit not in _UNITS:
            raise InvalidRequest(f'time: unknown unit "{unit}" in duration {quoted}')
        seconds += float(number) * _UNITS[unit]
        end = part.end()
    if not rest or seconds > _LONGEST:
        raise invalid
    return math.inf if text.startswith("-") and seconds > 0 else seconds


def parse_keep_alive(value: Any) -> float | None:
    """Seconds of a ``keep_alive``: a number of seconds or a duration; inf for a negative one, None for null."""
    match value:
        case None:
            return None
        case bool():
            raise InvalidRequest("Unsupported type: 'bool'")
        case int() | float():
            return math.inf if value < 0 else float(value)
        case str():
            return parse_duration(value)
        case list():
            raise InvalidRequest("Unsupported type: '[]interface {}'")
    raise InvalidRequest("Unsupported type: 'map[string]interface {}'")


def check_options(options: dict[str, Any]) -> None:
    """Refuse an option of the wrong type; those that are not known are let through, null is as good as absent."""
    for key, value in options.items():
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if value is None:
            continue
        if key in _INTEGERS and not number:
            raise InvalidRequest(f'option "{key}" must be of type integer')
        if key in _FLOATS and not number:
            raise InvalidRequest(f'option "{key}" must be of type float32')
        if key == "use_mmap" and not isinstance(value, bool):
            raise InvalidRequest(f'option "{key}" must be of type boolean')
        if key == "stop":
            if not isinstance(value, list):
                raise InvalidRequest(f'option "{key}" must be of type array')
            if not all(isinstance(item, str) for item in value):
                raise InvalidRequest(f'option "{key}" must be of an array of strings')


def integer_option(options: dict[str, Any], key: str) -> int | None:
    """An integer option, its fraction dropped as Go's conversion does; None where it is absent or null."""
    value = options.get(key)
    return None if value is None else math.trunc(max(min(value, 2**62), -(2**62)))
