"""The API on a cluster: the same answers, and none lost with a replica or a node."""

from __future__ import annotations

import os
import re
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import numpy as np
import pytest

from tests.cluster.conftest import Nodes, replicas, within
from tests.conftest import Server, unitvec
from tests.golden.test_golden import CASES, check

pytestmark = pytest.mark.ray


@pytest.mark.parametrize("case", CASES, ids=[case["name"] for case in CASES])
def test_as_recorded(case: dict[str, Any], door: Server) -> None:
    check(case, door.url)


@pytest.mark.parametrize("case", CASES, ids=[case["name"] for case in CASES])
def test_as_recorded_behind_serves_proxy(case: dict[str, Any], proxied: str) -> None:
    check(case, proxied)


class Load:
    """Clients that each send the next text when they have the last one's vector, while the context lasts."""

    def __init__(self, url: str, clients: int, model: str = "all-minilm") -> None:
        self.replies: list[tuple[str, httpx.Response]] = []
        self._url, self._model = url, model
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._client, args=(n,)) for n in range(clients)]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def more(self, count: int) -> None:
        """Wait for so many more answers."""
        wanted = len(self.replies) + count
        within(60, lambda: len(self.replies) >= wanted)

    def _client(self, number: int) -> None:
        with httpx.Client(base_url=self._url, timeout=60, trust_env=False) as client:
            for turn in range(100_000):
                if self._over.is_set():
                    return
                text = f"client {number} sends its text {turn}, which is new to everyone"
                reply = client.post("/api/embed", json={"model": self._model, "input": text})
                self.replies.append((text, reply))


def check_all(load: Load, door: Server) -> None:
    """Every request was answered, with the vector of its text."""
    assert [reply.text for _, reply in load.replies if reply.status_code != 200] == []
    some = load.replies[:: max(1, len(load.replies) // 50)]
    alone = np.array(door.embed(input=[text for text, _ in some])["embeddings"])
    under_load = np.array([reply.json()["embeddings"][0] for _, reply in some])
    assert np.abs(alone - under_load).max() < 1e-6


def test_a_killed_node_loses_no_request(nodes: Nodes, door: Server) -> None:
    within(60, lambda: len(set(replicas().values())) == 2)  # one on each node
    with Load(door.url, 8) as load:
        load.more(50)
        nodes.cluster.remove_node(nodes.second, allow_graceful=False)
        load.more(200)
        within(60, lambda: len(set(replicas().values())) == 1)
        nodes.second = nodes.add()
        load.more(50)
    check_all(load, door)


def test_a_killed_replica_loses_no_request(door: Server) -> None:
    with Load(door.url, 8) as load:
        load.more(50)
        killed = min(replicas())
        os.kill(killed, signal.SIGKILL)
        load.more(200)
        within(60, lambda: len(replicas()) == 2 and killed not in replicas())  # Serve starts another one
    check_all(load, door)


def test_an_answer_may_be_large(door: Server) -> None:
    vectors = np.array(door.embed(input=[f"text {n}" for n in range(3_000)])["embeddings"], np.float32)
    assert vectors.nbytes > 4 << 20
    alone = np.array(door.embed(input="text 2999")["embeddings"], np.float32)
    assert np.abs(vectors[-1] - alone[0]).max() < 1e-6


def test_a_second_door_shares_the_replicas(nodes: Nodes, door: Server) -> None:
    before = set(replicas())
    second = Server(f"--ray={nodes.address}")
    vector = door.embed(input="the same text")["embeddings"]
    assert second.embed(input="the same text")["embeddings"] == vector
    assert second.client.get("/api/ps").json()["models"][0]["name"] == "all-minilm:latest"
    second.close()
    assert set(replicas()) == before
    assert door.embed(input="the same text")["embeddings"] == vector


def test_a_caller_who_leaves_frees_the_replica(door: Server) -> None:
    def counted(name: str) -> float:
        found = re.search(rf"^unitvec_{name} ([\d.]+)", door.client.get("/metrics").text, re.MULTILINE)
        assert found
        return float(found[1])

    within(60, lambda: door.client.get("/api/ps").json()["models"])
    before = counted("cancelled_total")
    texts = [f"{n} " + "a long text of many words " * 40 for n in range(600)]  # most of a minute's work
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(f"{door.url}/api/embed", json={"model": "all-minilm", "input": texts}, timeout=1.5, trust_env=False)
    within(5, lambda: counted("cancelled_total") > before and counted("queue_requests") == 0)


def test_an_error_is_no_one_elses(door: Server) -> None:
    """Small requests go to a replica together; what is wrong with one is its caller's matter."""
    many = "a " * 400  # tokens, of which all-minilm takes 256
    with httpx.Client(base_url=door.url, timeout=60, trust_env=False) as client, ThreadPoolExecutor(16) as pool:

        def ask(n: int) -> tuple[int, dict[str, Any]]:
            text, name = (
                (many, "all-minilm") if n % 4 == 1 else (f"text {n}", "missing" if n % 4 == 2 else "all-minilm")
            )
            reply = client.post("/api/embed", json={"model": name, "input": text, "truncate": False})
            return reply.status_code, reply.json()

        answers = list(pool.map(ask, range(200)))
    alone = np.array(door.embed(input=[f"text {n}" for n in range(200)])["embeddings"])
    for n, (status, body) in enumerate(answers):
        assert status == (400 if n % 4 == 1 else 404 if n % 4 == 2 else 200), body
        if status == 200:
            assert np.abs(np.array(body["embeddings"][0]) - alone[n]).max() < 1e-6


def test_a_model_is_loaded_where_it_is_needed(door: Server) -> None:
    def bytes_of(name: str) -> int:
        models = {model["name"]: model["size"] for model in door.client.get("/api/ps").json()["models"]}
        return int(models.get(f"{name}:latest", 0))

    assert unitvec("cp", "all-minilm", "another").returncode == 0
    within(60, lambda: len(replicas()) == 2)
    door.embed(model="another", input="text")
    one = bytes_of("another")
    for n in range(20):
        door.embed(model="another", input=f"text {n}", keep_alive=-1)
        time.sleep(0.05)
    assert bytes_of("another") == one  # nobody was busy, so one replica has it
    with Load(door.url, 32, "another") as load:
        within(60, lambda: bytes_of("another") > 1.5 * one)  # a tokenizer's share is measured, and never quite the same
    check_all(load, door)
    stop = {"model": "another", "keep_alive": 0}
    assert door.client.post("/api/generate", json=stop).json()["done_reason"] == "unload"
    assert bytes_of("another") == 0


def test_replicas_come_and_go_with_the_queue(proxied: str) -> None:
    assert len(replicas("default")) == 1
    with Load(proxied, 16) as load:
        within(60, lambda: len(replicas("default")) == 2)
        load.more(50)
    within(90, lambda: len(replicas("default")) == 1)
    assert {reply.status_code for _, reply in load.replies} == {200}
