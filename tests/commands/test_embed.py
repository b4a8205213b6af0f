"""`unitvec embed` at the terminal."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest

from tests.conftest import unitvec


def test_arguments_become_one_array_a_line(all_minilm: str) -> None:
    result = unitvec("embed", all_minilm, "Why is the sky blue?", "another")
    rows = [json.loads(line) for line in result.stdout.splitlines()]
    assert [len(row) for row in rows] == [384, 384]


def test_lines_of_standard_input_in_their_order(all_minilm: str) -> None:
    lines = [f"line {i}" for i in range(1500)]
    result = unitvec("embed", all_minilm, "--format", "npy", input="\n".join(lines).encode())
    vectors = np.load(io.BytesIO(result.stdout))
    assert vectors.shape == (1500, 384)
    assert vectors.dtype == np.float32
    few = unitvec("embed", all_minilm, "--format", "plain", lines[0], lines[1499])
    wanted = np.array([[float(x) for x in row.split()] for row in few.stdout.decode().splitlines()])
    assert vectors[[0, 1499]] == pytest.approx(wanted, abs=1e-6)


def test_no_line_is_no_vector(all_minilm: str) -> None:
    assert unitvec("embed", all_minilm, input=b"").stdout == b""
    assert np.load(io.BytesIO(unitvec("embed", all_minilm, "--format", "npy", input=b"").stdout)).shape == (0, 384)


@pytest.mark.parametrize(
    ("arguments", "given", "wrong"),
    [
        (["no-such-model", "a"], b"", "registry.ollama.ai"),
        (["all-minilm", "--no-truncate", "word " * 300], b"", "exceeds the context length"),
        (["all-minilm"], b"good\n\xff\xfe\n", "line 2"),
        (["../../etc/passwd", "a"], b"", "invalid model name"),
    ],
)
def test_a_mistake_is_one_line(all_minilm: str, arguments: list[str], given: bytes, wrong: str) -> None:
    result = unitvec("embed", *arguments, input=given)
    assert result.returncode == 1
    message = result.stderr.decode().removeprefix("pulling manifest\n")  # said before it fails
    assert message.startswith("Error: ")
    assert message.count("\n") == 1
    assert wrong in message
