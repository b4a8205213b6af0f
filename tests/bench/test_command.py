import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.conftest import Server, free_port, unitvec

SMALL = ("--seconds", "0.1", "--texts", "short", "--clients", "1,4", "--batches", "3")


def test_a_real_server(server: Server, tmp_path: Path):
    file = tmp_path / "figures.json"
    result = unitvec("bench", server.url, *SMALL, "--rates", "50", "--json", str(file), "--seed", "5")
    assert result.returncode == 0, result.stderr.decode()
    printed = result.stdout.decode()
    assert "384 dimensions" in printed
    assert "query, p99 ms" in printed
    figures = json.loads(file.read_bytes())
    assert figures["seed"] == 5
    assert figures["machine"]["cores"] >= 1
    loads = [(m["clients"], m["batch"], m["rate"]) for m in figures["measurements"]]
    assert loads == [(1, 1, None), (4, 1, None), (1, 3, None), (0, 1, 50)]
    measured = [*figures["measurements"], *figures["mix"].values()]
    for one in measured:
        assert one["errors"] == 0
        assert one["failures"] == {}
        assert one["answered"] >= one["requests"] > 0
        assert one["tokens"] > 20 * one["answered"]
        assert one["texts_per_second"] > 0
        assert one["agreement"] > 0.99999
    assert len(printed.splitlines()) < 20


def test_measurements_can_be_left_out(server: Server):
    result = unitvec("bench", server.url, "--seconds", "0.1", "--clients", "1", "--batches", "", "--no-mix",
                     "--texts", "mixed")  # fmt: skip
    assert result.returncode == 0, result.stderr.decode()
    assert "mixed" in result.stdout.decode()
    assert "mix:" not in result.stdout.decode()


def test_no_server_is_one_line():
    result = unitvec("bench", f"http://127.0.0.1:{free_port()}", *SMALL)
    assert result.returncode == 1
    (line,) = result.stderr.decode().splitlines()
    assert line.startswith("Error: no server answers at http://127.0.0.1:")
    assert line.lower().endswith("connection refused")


def test_a_model_that_is_not_there_is_one_line(server: Server):
    result = unitvec("bench", server.url, "--model", "absent", *SMALL)
    assert result.returncode == 1
    (line,) = result.stderr.decode().splitlines()
    assert line == f'Error: {server.url} answered 404: model "absent" not found, try pulling it first'


@pytest.mark.parametrize(
    "arguments",
    [("--clients", "0"), ("--clients", "a"), ("--rates", "0"), ("--texts", "long"), ("--plot", "x.png", "--no-mix")],
)
def test_what_makes_no_sense_is_refused(arguments: tuple[str, ...]):
    result = unitvec("bench", *arguments)
    assert result.returncode == 2
    assert b"Error" in result.stderr


def test_a_plot(server: Server, tmp_path: Path):
    file = tmp_path / "mix.svg"
    arguments = ("bench", server.url, "--seconds", "0.1", "--clients", "", "--batches", "", "--plot", str(file))
    result = unitvec(*arguments)
    if importlib.util.find_spec("matplotlib"):
        assert result.returncode == 0, result.stderr.decode()
        assert file.read_text().startswith("<?xml")
    else:
        assert result.returncode == 1
        assert result.stderr.decode() == "Error: a plot needs matplotlib: pip install 'unitvec[bench]'\n"


def test_ctrl_c_ends_it_cleanly(server: Server):
    command = [sys.executable, "-m", "unitvec", "bench", server.url, "--seconds", "60", "--clients", "8"]
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment) as running:
        assert running.stdout is not None
        assert b"Ctrl-C" in running.stdout.readline()
        time.sleep(0.3)  # into the first measurement
        running.send_signal(signal.SIGINT)
        _, said = running.communicate(timeout=20)
    assert running.returncode == 130
    assert b"Traceback" not in said
    assert len(said.splitlines()) <= 1
