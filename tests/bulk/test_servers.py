"""`--url`: the same on running servers."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

import unitvec
from tests.conftest import Server, free_port
from tests.conftest import unitvec as command
from tests.models import tiny

Embed = Callable[..., subprocess.CompletedProcess[bytes]]


@pytest.fixture(scope="module")
def wanted(all_minilm: str, texts: list[str]) -> np.ndarray:
    with unitvec.load(all_minilm) as model:
        return model.embed(texts)


@contextlib.contextmanager
def _begun(embed: list[str], folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(embed, cwd=folder, stderr=subprocess.PIPE)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def test_several_share_the_work(
    embed: Embed, start: Callable[..., Server], rows: Path, tmp_path: Path, wanted: np.ndarray
) -> None:
    # One of them lets a single request wait: the rest of what it is sent is turned away for now.
    servers = [start(), start("--max-queue", "1", "--threads", "1")]
    urls = [argument for server in servers for argument in ("--url", server.url)]
    result = embed("--input", rows, *urls, "--output", "v.npy", "--window", "256")
    assert result.returncode == 0, result.stderr.decode()
    assert np.load(tmp_path / "v.npy") == pytest.approx(wanted, abs=1e-5)
    assert all("/api/embed" in server.output() for server in servers)


def test_a_dead_server_leaves_its_work_to_the_others(
    start: Callable[..., Server], rows: Path, tmp_path: Path, wanted: np.ndarray
) -> None:
    alive, dead = start(), start()
    asked = ["--input", str(rows), "--output", "v.npy", "--window", "100", "--url", dead.url, "--url", alive.url]
    with _begun(_embed(*asked), tmp_path) as process:
        while not list(tmp_path.glob("v.npy.parts/*.npz")) and process.poll() is None:
            time.sleep(0.005)
        dead.process.kill()
        _, said = process.communicate(timeout=60)
    assert process.returncode == 0, said.decode()
    assert np.load(tmp_path / "v.npy") == pytest.approx(wanted, abs=1e-5)


def test_all_gone_it_gives_up_and_goes_on_later(
    embed: Embed, start: Callable[..., Server], rows: Path, tmp_path: Path, wanted: np.ndarray
) -> None:
    server = start()
    asked = ["--input", str(rows), "--output", "v.npy", "--window", "50", "--url", server.url, "--patience", "0.5"]
    with _begun(_embed(*asked), tmp_path) as process:
        while not list(tmp_path.glob("v.npy.parts/*.npz")) and process.poll() is None:
            time.sleep(0.005)
        server.process.kill()
        _, said = process.communicate(timeout=60)
    assert process.returncode == 1
    assert b"no server has answered for" in said
    assert b"The same command (without --restart) goes on from there." in said
    result = embed("--input", rows, "--output", "v.npy", "--window", "50")  # in this process, from there
    assert result.returncode == 0
    assert b"going on behind" in result.stderr
    assert np.load(tmp_path / "v.npy") == pytest.approx(wanted, abs=1e-5)


def test_a_server_that_comes_back_is_used_again(
    start: Callable[..., Server], rows: Path, tmp_path: Path, wanted: np.ndarray
) -> None:
    server = start()
    asked = ["--input", str(rows), "--output", "v.npy", "--window", "50", "--url", server.url, "--patience", "60"]
    with _begun(_embed(*asked), tmp_path) as process:
        while not list(tmp_path.glob("v.npy.parts/*.npz")) and process.poll() is None:
            time.sleep(0.005)
        server.process.kill()
        server.process.wait()
        again = [sys.executable, "-m", "unitvec", "serve", "all-minilm", "--host", f"127.0.0.1:{server.port}"]
        with subprocess.Popen(again, stderr=subprocess.DEVNULL) as second:
            _, said = process.communicate(timeout=60)
            second.terminate()
    assert process.returncode == 0, said.decode()
    assert np.load(tmp_path / "v.npy") == pytest.approx(wanted, abs=1e-5)


def test_one_text_that_is_refused_takes_no_other_with_it(
    embed: Embed, server: Server, rows: Path, tmp_path: Path, texts: list[str], wanted: np.ndarray
) -> None:
    long = json.dumps({"id": -1, "text": "word " * 400})
    lines = rows.read_text().splitlines()[:90]
    rows.write_text("\n".join([*lines[:40], long, *lines[40:]]))
    result = embed("--input", rows, "--url", server.url, "--no-truncate", "--output", "v.npy")
    assert result.returncode == 3
    rejects = [json.loads(line) for line in (tmp_path / "v.npy.rejects.jsonl").read_text().splitlines()]
    assert [(reject["row"], "context length" in reject["reason"]) for reject in rejects] == [(40, True)]
    vectors = np.load(tmp_path / "v.npy")
    assert np.isnan(vectors[40]).all()
    assert np.delete(vectors, 40, axis=0) == pytest.approx(wanted[:90], abs=1e-5)


def test_dimensions_and_context_are_passed_on(embed: Embed, server: Server, rows: Path, tmp_path: Path) -> None:
    options = ["--input", rows, "--dimensions", "64", "--context-length", "8"]
    assert embed(*options, "--url", server.url, "--output", "there.npy").returncode == 0
    assert embed(*options, "--output", "here.npy").returncode == 0
    there, here = np.load(tmp_path / "there.npy"), np.load(tmp_path / "here.npy")
    assert there.shape == (400, 64)
    assert there == pytest.approx(here, abs=1e-5)


def test_mistakes(embed: Embed, server: Server, start: Callable[..., Server], rows: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    tiny.bert().write(tmp_path / "tiny.gguf")
    home = {"UNITVEC_HOME": str(other), "OLLAMA_MODELS": str(other / "ollama"), "OLLAMA_HOST": "127.0.0.1:1"}
    made = command("create", "all-minilm", "--from", str(tmp_path / "tiny.gguf"), env={**os.environ, **home})
    assert made.returncode == 0, made.stderr.decode()
    different = start(environment=home)
    locked = start("--api-key", "secret")
    nobody = f"http://127.0.0.1:{free_port()}"
    for urls, wrong in (
        ([nobody], "no server answers: "),
        ([server.url, different.url], f"all-minilm on {different.url}"),
        ([locked.url], "its key goes into UNITVEC_API_KEY"),
    ):
        asked = [argument for url in urls for argument in ("--url", url)]
        result = embed("--input", rows, *asked, "--output", "v.npy")
        assert result.returncode == 1
        assert result.stderr.decode().startswith("Error: ")
        assert wrong in result.stderr.decode()
    missing = command("embed", "no-such-model", "--input", str(rows), "--url", server.url, "--output", "v.npy")
    assert missing.returncode == 1
    assert b'model "no-such-model" not found' in missing.stderr
    key = {**os.environ, "UNITVEC_API_KEY": "secret"}
    assert embed("--input", rows, "--url", locked.url, "--output", "v.npy", env=key).returncode == 0


def test_interrupted_it_ends_at_once(server: Server, rows: Path, tmp_path: Path) -> None:
    asked = ["--input", str(rows), "--output", "v.npy", "--window", "50", "--url", server.url]
    with _begun(_embed(*asked), tmp_path) as process:
        while not list(tmp_path.glob("v.npy.parts/*.npz")) and process.poll() is None:
            time.sleep(0.005)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=20)
    assert process.returncode == 130
    assert b"rows are done. The same command (without --restart) goes on from there." in said
    assert b"Traceback" not in said


def _embed(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "unitvec", "embed", "all-minilm", *arguments]
