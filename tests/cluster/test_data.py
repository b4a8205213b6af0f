"""`unitvec embed --ray`: the same parts as in one process, whatever dies."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.cluster.conftest import Nodes, processes, within
from tests.conftest import unitvec

pytestmark = pytest.mark.ray

ROWS = 3_000
WINDOW = 100


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of texts, of which some cannot be embedded."""
    path = tmp_path_factory.mktemp("rows") / "rows.jsonl"
    texts = [None if n % 500 == 7 else f"row {n} has {n % 7} words more:" + " more" * (n % 7) for n in range(ROWS)]
    path.write_text("".join(json.dumps({"id": n, "text": text}) + "\n" for n, text in enumerate(texts)))
    return path


@pytest.fixture(scope="module")
def plain(rows: Path, all_minilm: str) -> np.ndarray:
    """What one process makes of them, float32 [rows, 384]."""
    output = rows.with_name("plain.npy")
    assert unitvec(*_command(rows, output), timeout=300).returncode == 3
    return np.load(output)


def _command(rows: Path, output: Path, *more: str) -> list[str]:
    return ["embed", "all-minilm", "-i", str(rows), "-o", str(output), "--window", str(WINDOW), *more]


def _same(output: Path, plain: np.ndarray) -> None:
    found = np.load(output)
    assert found.shape == plain.shape
    assert (np.isnan(found) == np.isnan(plain)).all()
    assert np.nanmax(np.abs(found - plain)) < 1e-6


def test_a_file_over_a_cluster(nodes: Nodes, rows: Path, plain: np.ndarray, tmp_path: Path) -> None:
    output = tmp_path / "vectors.npy"
    done = unitvec(*_command(rows, output, f"--ray={nodes.address}"), timeout=300)
    assert done.returncode == 3, done.stderr.decode()
    _same(output, plain)
    assert len((tmp_path / "vectors.npy.rejects.jsonl").read_text().splitlines()) == 6


def test_a_run_that_was_killed_goes_on_with_or_without_a_cluster(
    nodes: Nodes, rows: Path, plain: np.ndarray, tmp_path: Path
) -> None:
    output, parts = tmp_path / "vectors.npy", tmp_path / "vectors.npy.parts"
    command = [sys.executable, "-m", "unitvec", *_command(rows, output, f"--ray={nodes.address}")]
    for _ in range(2):
        before = len(list(parts.glob("*.npz")))
        running = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        within(120, lambda n=before: len(list(parts.glob("*.npz"))) > n + 1)
        running.kill()
        running.wait()
    first = {path.name: path.stat().st_mtime_ns for path in parts.glob("*.npz")}
    assert len(first) < ROWS // WINDOW
    done = unitvec(*_command(rows, output), timeout=300)
    assert done.returncode == 3, done.stderr.decode()
    assert b"that are done" in done.stderr
    _same(output, plain)


def test_a_killed_actor_is_replaced(nodes: Nodes, rows: Path, plain: np.ndarray, tmp_path: Path) -> None:
    output, parts = tmp_path / "vectors.npy", tmp_path / "vectors.npy.parts"
    command = [sys.executable, "-m", "unitvec", *_command(rows, output, f"--ray={nodes.address}")]
    running = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    within(120, lambda: len(list(parts.glob("*.npz"))) > 2)
    actors = processes(b"ray::MapWorker")
    assert actors
    os.kill(min(actors), signal.SIGKILL)
    assert running.wait(300) == 3, running.communicate()[1].decode()
    running.stderr.close()
    _same(output, plain)


@pytest.mark.parametrize(
    ("arguments", "wrong"),
    [
        (["--ray=nonsense"], "no address of a cluster"),
        (["--ray=127.0.0.1:9"], "no cluster answers"),
        (["--ray=local", "--url", "http://127.0.0.1:9"], "give one"),
    ],
)
def test_a_mistake_is_named(arguments: list[str], wrong: str, rows: Path, all_minilm: str, tmp_path: Path) -> None:
    result = unitvec(*_command(rows, tmp_path / "out.npy", *arguments))
    assert result.returncode in (1, 2)
    assert wrong in result.stderr.decode()
    assert "Traceback" not in result.stderr.decode()
