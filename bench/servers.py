"""Servers that a comparison starts, and what else the machine was doing meanwhile."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from unitvec.bench import load, machine
from unitvec.bench.measure import Bench
from unitvec.bench.texts import Texts
from unitvec.errors import UnitvecError


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass(frozen=True)
class Recipe:
    """How a server is started. ``{port}`` in the command stands for the port that it is to listen on."""

    name: str
    kind: str
    model: str
    command: Sequence[str]
    environment: dict[str, str] = field(default_factory=dict)


@contextmanager
def started(recipe: Recipe, texts: Texts, *, patience: float = 180) -> Iterator[tuple[Bench, int]]:
    """A server that answers, to be measured with these texts, and its process group."""
    port = free_port()
    command = [part.format(port=port) for part in recipe.command]
    log = Path(tempfile.gettempdir()) / f"unitvec-bench-{recipe.name.replace(' ', '-')}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, **recipe.environment},
            start_new_session=True,
        )
    bench = Bench(f"http://127.0.0.1:{port}", recipe.kind, recipe.model, texts)
    try:
        deadline = time.monotonic() + patience
        while True:
            try:
                load.run(bench.probe())
                break
            except UnitvecError as error:
                if process.poll() is not None or time.monotonic() > deadline:
                    raise UnitvecError(f"{recipe.name} does not answer ({error.message}); see {log}") from None
                time.sleep(0.2)
        yield bench, process.pid
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


Figures = dict[str, float]
TRIES = 3
PATIENCE = 6.0  # seconds to wait for a quiet machine


def quietest(measure: Callable[[], Figures], others: Others, quiet: float) -> tuple[float, Figures]:
    """The share of the machine that others took, and the figures, of the quietest of a few tries.

    Each try waits, but not for ever, until others take no more than ``quiet`` of the machine. The first
    that stays as quiet is the last.
    """
    best: tuple[float, Figures] | None = None
    for _ in range(TRIES):
        others.wait(quiet)
        figures = measure()
        busy = others.share()
        if best is None or busy < best[0]:
            best = busy, figures
        if busy <= quiet:
            break
    assert best is not None
    return best


class Others:
    """How much of the machine processes took that are neither this one nor of the groups that it started."""

    def __init__(self, groups: Sequence[int]) -> None:
        self._groups = {*groups, os.getpgrp()}
        self._before = self._taken()

    def share(self) -> float:
        """Of all cores, since the last call; noise is to be expected from a tenth on."""
        before, self._before = self._before, self._taken()
        total, busy, ours = (now - then for now, then in zip(self._before, before, strict=True))
        return max(0.0, (busy - ours) / total) if total else 0.0

    def wait(self, quiet: float) -> None:
        """Return when they take no more than ``quiet`` of all cores, or patience is at its end."""
        deadline = time.monotonic() + PATIENCE
        self.share()
        while time.monotonic() < deadline:
            time.sleep(0.3)
            if self.share() <= quiet:
                break

    def _taken(self) -> tuple[float, float, float]:
        """Clock ticks since the machine started: of all cores, of those busy, of those busy for us."""
        fields = list(map(int, Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]))
        idle = fields[3] + fields[4]
        ours = 0
        for stat in Path("/proc").glob("[0-9]*/stat"):
            try:
                parts = stat.read_text().rsplit(")", 1)[1].split()
            except OSError:  # it has ended
                continue
            if int(parts[2]) in self._groups:
                ours += int(parts[11]) + int(parts[12])
        return sum(fields), sum(fields) - idle, ours


def write_report(path: Path, **found: object) -> None:
    """What was found, and on which machine, as JSON."""
    path.write_text(json.dumps({"machine": machine.describe(), **found}, indent=2) + "\n")
