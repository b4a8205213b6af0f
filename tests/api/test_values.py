"""Durations, options and request bodies, by property."""

from __future__ import annotations

import math

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from unitvec.api.schemas import EmbedRequest, decode
from unitvec.api.values import check_options, integer_option, parse_duration, parse_keep_alive
from unitvec.errors import InvalidRequest, UnitvecError

UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1, "m": 60, "h": 3600}

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)


@given(st.lists(st.tuples(st.integers(0, 10**6), st.sampled_from(sorted(UNITS))), min_size=1, max_size=4))
def test_a_duration_is_the_sum_of_its_parts(parts: list[tuple[int, str]]) -> None:
    text = "".join(f"{number}{unit}" for number, unit in parts)
    total = sum(number * UNITS[unit] for number, unit in parts)
    assert parse_duration(text) == pytest.approx(total)
    assert parse_duration(f"-{text}") == (math.inf if total else 0)


@given(st.text())
def test_any_text_is_a_duration_or_an_error_of_gos(text: str) -> None:
    try:
        assert parse_duration(text) >= 0
    except InvalidRequest as error:
        assert error.message.startswith("time: ")


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("0", 0), ("-0", 0), ("1.5h", 5400), (".5s", 0.5), ("1h30m", 5400), ("+5m", 300), ("-1s", math.inf), ("0s", 0)],
)
def test_durations_of_go(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", 'time: invalid duration ""'),
        ("soon", 'time: invalid duration "soon"'),
        ("-1", 'time: missing unit in duration "-1"'),
        ("5", 'time: missing unit in duration "5"'),
        ("5d", 'time: unknown unit "d" in duration "5d"'),
        (".s", 'time: invalid duration ".s"'),
        ("١s", 'time: invalid duration "١s"'),
        ("9999999999h", 'time: invalid duration "9999999999h"'),
    ],
)
def test_texts_that_are_no_durations(text: str, message: str) -> None:
    with pytest.raises(InvalidRequest) as raised:
        parse_duration(text)
    assert raised.value.message == message


@given(json_values)
def test_a_keep_alive_is_seconds_or_an_error(value: object) -> None:
    try:
        seconds = parse_keep_alive(value)
    except InvalidRequest:
        assert not isinstance(value, int | float) or isinstance(value, bool)
    else:
        assert seconds is None if value is None else seconds >= 0  # type: ignore[operator]


@given(st.dictionaries(st.sampled_from(["num_ctx", "temperature", "stop", "use_mmap", "unknown"]), json_values))
def test_options_pass_or_are_named(options: dict[str, object]) -> None:
    try:
        check_options(options)
    except InvalidRequest as error:
        assert any(f'"{key}"' in error.message for key in options)
    else:
        number = integer_option(options, "num_ctx")
        assert number is None or isinstance(number, int)


@given(
    st.dictionaries(st.sampled_from(["model", "Input", "truncate", "dimensions", "keep_alive", "options"]), json_values)
)
def test_any_object_is_a_request_or_a_named_error(fields: dict[str, object]) -> None:
    try:
        request = EmbedRequest.parse(orjson.dumps(fields))
    except UnitvecError as error:
        assert error.status in (400, 404)
        assert error.message
    else:
        assert request.model == fields["model"]
        assert all(isinstance(text, str) for text in request.texts)


@given(st.binary())
def test_any_bytes_are_an_object_or_an_error(body: bytes) -> None:
    try:
        assert isinstance(decode(body), dict)
    except InvalidRequest as error:
        assert error.message
