"""`unitvec compare`, between real servers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.conftest import Server, free_port, unitvec
from unitvec.commands.compare import TEXTS


def compare(server: Server, *arguments: str):
    return unitvec("compare", *arguments, "--here", server.url)


def test_one_server_with_itself_by_both_apis(server: Server) -> None:
    for url in (server.url, f"{server.url}/v1"):
        done = compare(server, url, "--json")
        assert done.returncode == 0, done.stderr
        found = json.loads(done.stdout)
        assert found["texts"] == len(TEXTS)
        assert found["dimensions"] == 384
        assert found["cosine_least"] > 0.99999
        assert found["under_0_999"] == 0
        assert found["different"] == []
        assert found["there"]["tokens"] == found["here"]["tokens"] > 500
        assert found["here"]["p50_ms"] <= found["here"]["p99_ms"]


def test_what_a_person_reads(server: Server, tmp_path: Path) -> None:
    (tmp_path / "texts").write_text("one\n\ntwo\nthree\n")
    done = compare(server, server.url, str(tmp_path / "texts"), "--batch", "2")
    assert done.returncode == 0, done.stderr
    told = done.stdout.decode()
    assert "all-minilm: 3 texts, 384 dimensions" in told
    assert "0 under 0.999" in told
    assert "texts/s" in told


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["http://127.0.0.1:{port}"], "does not answer"),
        (["{url}/nowhere"], "no vectors"),
        (["{url}", "--model", "nope"], 'model "nope" not found'),
        (["{url}", "{empty}"], "has no text"),
        (["{url}", "{binary}"], "is not UTF-8"),
        (["http://[::1"], "does not answer"),
    ],
)
def test_what_goes_wrong_is_one_line(server: Server, tmp_path: Path, arguments: list[str], why: str) -> None:
    (tmp_path / "empty").touch()
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    places = {"port": str(free_port()), "url": server.url, "empty": str(tmp_path / "empty")}
    done = compare(server, *(one.format(**places, binary=tmp_path / "binary") for one in arguments))
    assert done.returncode == 1
    assert why in done.stderr.decode()
    assert done.stderr.startswith(b"Error: ")
    assert done.stderr.count(b"\n") == 1
