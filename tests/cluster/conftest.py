"""A Ray cluster of two nodes on this machine, with a folder of its own, and servers on it."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from tests.conftest import Server, free_port

REPLICA = b"ray::ServeReplica:%s:Replica"


def within(seconds: float, what: Callable[[], object]) -> None:
    """Wait until ``what`` is true."""
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, "it has not come about"
        time.sleep(0.1)


def replicas(application: str = "unitvec") -> dict[int, int]:
    """The processes of an application's replicas; see :func:`processes`."""
    return processes(REPLICA % application.encode())


def processes(start: bytes) -> dict[int, int]:
    """Those whose command lines start so, and the parent of each: of a Ray worker the raylet of its node."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if (folder / "cmdline").read_bytes().startswith(start):
                parent = (folder / "stat").read_text().rpartition(")")[2].split()[1]
                found[int(folder.name)] = int(parent)
    return found


class Nodes:
    """The cluster. ``proxy`` is where Serve's own proxy listens."""

    def __init__(self) -> None:
        os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
        from ray.cluster_utils import Cluster

        self.cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 3, "include_dashboard": False})
        self.second = self.add()
        port = free_port()
        self.proxy = f"http://127.0.0.1:{port}"
        self.run("serve", "start", "--address", self.address, "--http-host", "127.0.0.1", "--http-port", str(port))

    @property
    def address(self) -> str:
        return str(self.cluster.address)

    def add(self) -> object:
        return self.cluster.add_node(num_cpus=1)

    def run(self, *command: str) -> None:
        subprocess.run([Path(sys.executable).with_name(command[0]), *command[1:]], check=True, timeout=60)


@pytest.fixture(scope="session")
def nodes(all_minilm: str) -> Iterator[Nodes]:
    """The cluster, started once."""
    running = Nodes()
    yield running
    running.cluster.shutdown()


@pytest.fixture(scope="session")
def door(nodes: Nodes) -> Iterator[Server]:
    """``unitvec serve --ray`` with a replica on each node."""
    server = Server(
        "all-minilm",
        f"--ray={nodes.address}",
        "--threads=1",
        "--workers=1",
        "--min-replicas=2",
        "--max-replicas=2",
        "--memory=1G",
    )
    yield server
    server.close()


@pytest.fixture(scope="session")
def proxied(nodes: Nodes, door: Server) -> Iterator[str]:
    """``serve run unitvec.cluster:app``, beside the other one."""
    command = [Path(sys.executable).with_name("serve"), "run", "--address", nodes.address, "unitvec.cluster:app"]
    environment = {
        "UNITVEC_MODELS": "all-minilm",
        "UNITVEC_THREADS": "1",
        "UNITVEC_WORKERS": "1",
        "UNITVEC_MAX_REPLICAS": "2",
        "UNITVEC_TARGET_REQUESTS": "2",
        "UNITVEC_SCALE_DOWN_AFTER": "3",
    }
    running = subprocess.Popen(command, env=os.environ | environment, stdout=subprocess.DEVNULL)

    def answers() -> bool:
        with contextlib.suppress(httpx.TransportError):
            return httpx.get(f"{nodes.proxy}/api/version", timeout=5, trust_env=False).status_code == 200
        return False

    within(60, answers)
    yield nodes.proxy
    running.send_signal(signal.SIGINT)
    running.wait(30)
