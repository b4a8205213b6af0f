"""Files of rows, and the command run on them."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import unitvec
from unitvec.bench.texts import Texts


@pytest.fixture(scope="session")
def texts() -> list[str]:
    """A few hundred of mixed lengths, no two equal."""
    return Texts(7).take("mixed", 400)


@pytest.fixture
def rows(tmp_path: Path, texts: list[str]) -> Path:
    """Lines of JSON with a number and a text."""
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps({"id": number, "text": text}) + "\n" for number, text in enumerate(texts)))
    return path


@pytest.fixture
def embed(all_minilm: str, tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[bytes]]:
    """`unitvec embed all-minilm ...` in the test's folder."""

    def run(*arguments: str | Path, **options: object) -> subprocess.CompletedProcess[bytes]:
        return unitvec("embed", all_minilm, *map(str, arguments), cwd=tmp_path, **options)

    return run
