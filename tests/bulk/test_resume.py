"""A run that was ended goes on where it was."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

Embed = Callable[..., subprocess.CompletedProcess[bytes]]

WINDOW = 16


def _command(rows: Path, output: Path, *more: str) -> list[str]:
    carried = ["--carry", "id"] if output.suffix == ".parquet" else []
    asked = ["--input", str(rows), "--output", str(output), "--window", str(WINDOW), *carried, *more]
    return [sys.executable, "-m", "unitvec", "embed", "all-minilm", *asked]


def _begin(rows: Path, output: Path, *more: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(_command(rows, output, *more), stderr=subprocess.PIPE)


def _parts(output: Path) -> dict[str, tuple[int, int]]:
    """The parts that are there, with what would change if one were written again."""
    states = {path.name: path.stat() for path in Path(f"{output}.parts").glob("*.npz")}
    return {name: (state.st_ino, state.st_mtime_ns) for name, state in states.items()}


def _wait_for_parts(output: Path, count: int) -> None:
    deadline = time.monotonic() + 60
    while len(_parts(output)) < count:
        assert time.monotonic() < deadline
        time.sleep(0.002)


def _end(process: subprocess.Popen[bytes], how: int) -> str:
    process.send_signal(how)
    _, said = process.communicate(timeout=60)
    return said.decode()


@pytest.mark.parametrize("kills", [4, pytest.param(30, marks=pytest.mark.slow)])
def test_killed_at_random_moments(kills: int, all_minilm: str, rows: Path, tmp_path: Path) -> None:
    chance = random.Random(kills)
    whole = tmp_path / "whole.parquet"
    began = time.monotonic()
    subprocess.run(_command(rows, whole), check=True)
    life = time.monotonic() - began
    output = tmp_path / "v.parquet"
    done = 0
    while done < kills:
        before = _parts(output)
        process = _begin(rows, output)
        try:
            process.wait(chance.uniform(0, life))
        except subprocess.TimeoutExpired:
            _end(process, signal.SIGKILL)
            done += 1
        else:
            assert process.stderr is not None
            assert process.returncode == 0, process.stderr.read()
            process.stderr.close()
        if output.exists():
            assert pq.read_table(output).equals(pq.read_table(whole)), "what has the output's name is whole"
            if process.returncode == 0:
                assert not Path(f"{output}.parts").exists()
            if not Path(f"{output}.parts/plan.json").exists():
                output.unlink()  # begin anew
        else:
            after = _parts(output)
            assert before.items() <= after.items(), "a part was lost, or written again"
    subprocess.run(_command(rows, output), check=True)
    assert pq.read_table(output).equals(pq.read_table(whole))


def test_only_the_window_that_ran_runs_again(all_minilm: str, rows: Path, tmp_path: Path) -> None:
    output = tmp_path / "v.npy"
    process = _begin(rows, output)
    _wait_for_parts(output, 5)
    _end(process, signal.SIGKILL)
    kept = _parts(output)
    result = subprocess.run(_command(rows, output), check=True, capture_output=True)
    said = result.stderr.decode()
    assert f"going on behind {len(kept) * WINDOW} rows that are done" in said
    whole = tmp_path / "whole.npy"
    all_tokens = _tokens(subprocess.run(_command(rows, whole), check=True, capture_output=True).stderr.decode())
    assert _tokens(said) < all_tokens * (1 - 4 * WINDOW / 400)
    assert np.array_equal(np.load(output), np.load(whole))


def _tokens(said: str) -> int:
    return int(said.split(" different texts; ")[1].split(" tokens")[0].replace(",", ""))


def test_interrupted_it_says_how_to_go_on(all_minilm: str, rows: Path, tmp_path: Path) -> None:
    output = tmp_path / "v.npy"
    process = _begin(rows, output)
    _wait_for_parts(output, 2)
    said = _end(process, signal.SIGINT)
    assert process.returncode == 130
    assert "rows are done. The same command (without --restart) goes on from there." in said
    assert "Traceback" not in said


def test_ended_when_all_parts_were_there(embed: Embed, all_minilm: str, rows: Path, tmp_path: Path) -> None:
    """Killed between the last part and the output, or between the output's name and the end of the parts."""
    output, parts = tmp_path / "v.npy", tmp_path / "v.npy.parts"
    process = _begin(rows, output, "--fail-fast")
    while not output.exists() and process.poll() is None:  # keep what is there just before it goes
        if len(_parts(output)) == 400 // WINDOW:
            process.send_signal(signal.SIGSTOP)
            shutil.copytree(parts, tmp_path / "kept")
            process.send_signal(signal.SIGCONT)
            break
    assert process.communicate(timeout=60) and process.returncode == 0
    wanted = np.load(output)
    shutil.copytree(tmp_path / "kept", parts)
    again = subprocess.run(_command(rows, output), check=True, capture_output=True).stderr.decode()
    assert _tokens(again) == 0
    assert np.array_equal(np.load(output), wanted)
    output.unlink()
    shutil.move(tmp_path / "kept", parts)
    assert subprocess.run(_command(rows, output), check=False).returncode == 0
    assert np.array_equal(np.load(output), wanted)
    assert not parts.exists()


@pytest.fixture
def stopped(all_minilm: str, rows: Path, tmp_path: Path) -> Path:
    """The output of a run that was killed."""
    output = tmp_path / "v.parquet"
    process = _begin(rows, output)
    _wait_for_parts(output, 1)
    _end(process, signal.SIGKILL)
    assert _parts(output)
    return output


def test_what_has_changed_is_refused(stopped: Path, rows: Path, tmp_path: Path) -> None:
    def refused(*more: str) -> str:
        result = subprocess.run(_command(rows, stopped, *more), capture_output=True, check=False)
        assert result.returncode == 1
        said = result.stderr.decode()
        assert said.count("\n") == 1
        assert "--restart" in said
        return said

    before = _parts(stopped)
    assert "dimensions was 0 and is 100 now" in refused("--dimensions", "100")
    assert "dtype was float32 and is float16 now" in refused("--dtype", "float16")
    assert "truncate was True and is False now" in refused("--no-truncate")
    assert "carry was id and is id, text now" in refused("--carry", "text")
    assert "window was 16 and is 8 now" in refused("--window", "8")
    assert "the input was 1 file and is 2 files now" in refused("--input", __file__, "--input-format", "jsonl")
    plan = Path(f"{stopped}.parts/plan.json")
    kept = plan.read_bytes()
    plan.write_text(json.dumps(json.loads(kept) | {"digest": "0" * 64}))
    assert "the model was all-minilm 000000000000 and is all-minilm" in refused()
    plan.write_bytes(kept)
    text = rows.read_text()
    rows.write_text(text.replace("the", "thy"))
    os.utime(rows, ns=(0, 0))
    assert f"{rows} has changed. Begin anew" in refused()
    assert _parts(stopped) == before
    result = subprocess.run(_command(rows, stopped, "--restart"), capture_output=True, check=False)
    assert result.returncode == 0, result.stderr
    assert pq.read_metadata(stopped).num_rows == 400


def test_an_input_that_changes_while_it_is_read(all_minilm: str, rows: Path, tmp_path: Path) -> None:
    output = tmp_path / "v.npy"
    process = _begin(rows, output)
    _wait_for_parts(output, 1)
    process.send_signal(signal.SIGSTOP)
    with rows.open("a") as file:
        file.write('{"text": "one more"}')
    process.send_signal(signal.SIGCONT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 1
    last = said.decode().splitlines()[-1]
    assert last == f"Error: while it was read, {rows} has changed: begin anew with --restart"
    assert not output.exists()


def test_what_did_nothing_is_in_nobodys_way(embed: Embed, rows: Path, tmp_path: Path) -> None:
    assert embed("--input", rows, "--output", "v.npy", "--field", "id", "--fail-fast").returncode == 1
    assert embed("--input", rows, "--output", "v.npy").returncode == 0
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["rows.jsonl", "v.npy"]


def test_an_output_that_is_there_stays(embed: Embed, rows: Path, tmp_path: Path) -> None:
    (tmp_path / "v.npy").write_text("precious")
    result = embed("--input", rows, "--output", "v.npy")
    assert result.returncode == 1
    assert b"v.npy is there already: replace it with --restart" in result.stderr
    assert (tmp_path / "v.npy").read_text() == "precious"


def test_two_at_once_are_one_too_many(all_minilm: str, rows: Path, tmp_path: Path) -> None:
    output = tmp_path / "v.npy"
    process = _begin(rows, output)
    _wait_for_parts(output, 1)
    process.send_signal(signal.SIGSTOP)
    for more in ([], ["--restart"]):
        second = subprocess.run(_command(rows, output, *more), capture_output=True, check=False)
        assert second.returncode == 1
        assert second.stderr.decode() == f"Error: another run is writing {output}\n"
    process.send_signal(signal.SIGCONT)
    process.communicate(timeout=60)
    assert process.returncode == 0


def test_a_full_disk_loses_nothing(all_minilm: str, rows: Path, tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=300k", "none", str(small)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("cannot mount a small disk here")
    try:
        output = small / "v.npy"
        full = subprocess.run(_command(rows, output), capture_output=True, check=False)
        assert full.returncode == 1
        said = full.stderr.decode()
        assert "no space left on the disk of" in said
        assert "rows are done. The same command (without --restart) goes on from there." in said
        kept = _parts(output)
        assert kept
        subprocess.run(["mount", "-o", "remount,size=8m", str(small)], check=True)
        went_on = subprocess.run(_command(rows, output), capture_output=True, check=False)
        assert went_on.returncode == 0, went_on.stderr
        assert f"going on behind {len(kept) * WINDOW} rows" in went_on.stderr.decode()
        assert len(np.load(output)) == 400
    finally:
        subprocess.run(["umount", str(small)], check=True)


def test_standard_input_is_not_resumed(embed: Embed, tmp_path: Path) -> None:
    bad = b'{"text": "a"}\n{"text": 1}\n'
    asked = ["--input", "-", "--field", "text", "--output", "v.npy", "--window", "1"]
    result = embed(*asked, "--fail-fast", input=bad)
    assert result.returncode == 1
    assert b"What came through standard input is lost" in result.stderr
    assert list(tmp_path.iterdir()) == []
    assert embed(*asked, input=bad).returncode == 3
    assert len(np.load(tmp_path / "v.npy")) == 2
