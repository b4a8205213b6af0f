"""`POST /api/embed` beyond the recorded cases."""

from __future__ import annotations

import base64
import json
import threading
import time
from collections.abc import Callable

import httpx
import numpy as np
import ollama
import pytest

from tests.conftest import Server


def test_ollamas_own_client(server: Server) -> None:
    with ollama.Client(host=server.url) as client:
        one = client.embed(model="all-minilm", input="Why is the sky blue?")
        many = client.embed(
            model="all-minilm", input=["Why is the sky blue?", "Why is the grass green?"], dimensions=128
        )
        assert len(one.embeddings[0]) == 384
        assert [len(vector) for vector in many.embeddings] == [128, 128]
        assert client.list().models[0].model == "all-minilm:latest"
        assert client.show("all-minilm").details.family == "bert"
        assert client.ps().models[0].context_length == 256
        with pytest.raises(ollama.ResponseError, match="not found, try pulling it first"):
            client.embed(model="nope", input="a")


def test_floats_are_shortest_float32(server: Server) -> None:
    reply = server.client.post("/api/embed", json={"model": "all-minilm", "input": "shortest"})
    numbers = reply.text.split("[[")[1].split("]]")[0].split(",")
    assert len(numbers) == 384
    for number in numbers:
        assert np.float32(number) == np.float32(str(np.float32(number)))
        assert len(number.lstrip("-")) <= len(str(np.float32(number)).lstrip("-")) + 1


def test_durations_and_counts_are_true(server: Server) -> None:
    began = time.perf_counter_ns()
    answer = server.embed(input=["Why is the sky blue?"] * 3)
    took = time.perf_counter_ns() - began
    assert 0 < answer["load_duration"] < answer["total_duration"] < took  # type: ignore[operator]
    assert answer["prompt_eval_count"] == 24


@pytest.mark.parametrize(
    ("body", "wrong"),
    [
        ('{"model":"all-minilm","input":"a","dimensions":64.0}', "dimensions"),
        ('{"model":"all-minilm","input":"a","dimensions":true}', "dimensions"),
        ('{"model":"all-minilm","input":"a","truncate":1}', "truncate"),
        ('{"model":["all-minilm"],"input":"a"}', "model"),
        ('{"model":"all-minilm","input":"a","options":"none"}', "options"),
        ('{"model":"all-minilm","input":"a","options":{"temperature":"hot"}}', "temperature"),
        ('{"model":"all-minilm","input":"a","options":{"stop":"x"}}', "stop"),
        ('{"model":"all-minilm","input":"a","options":{"stop":[1]}}', "stop"),
        ('{"model":"all-minilm","input":"a","options":{"use_mmap":1}}', "use_mmap"),
        ('{"model":"all-minilm","input":"a","options":{"num_ctx":true}}', "num_ctx"),
        ('{"model":"all-minilm","input":"a","keep_alive":[]}', "interface"),
        ('{"model":"all-minilm","input":"a","keep_alive":{}}', "map"),
        ('{"model":"all-minilm","input":"a","keep_alive":""}', "duration"),
        ('{"model":"all-minilm","input":NaN}', "JSON"),
        ('{"model":"all-minilm","input":"\\ud800 and NaN", "x": NaN}', "NaN"),
        ("[" * 100_000, "JSON"),
        ('{"a":' * 5000, "JSON"),
    ],
)
def test_a_callers_mistake_is_named(server: Server, body: str, wrong: str) -> None:
    reply = server.client.post("/api/embed", content=body)
    assert reply.status_code == 400
    assert wrong in reply.json()["error"]


def test_bytes_that_are_no_utf8_are_refused(server: Server) -> None:
    reply = server.client.post("/api/embed", content=b'{"model":"all-minilm","input":"\xff\xfe"}')
    assert reply.status_code == 400
    assert "JSON" in reply.json()["error"]


def test_half_a_surrogate_pair_counts_as_replacement(server: Server) -> None:
    cut = server.client.post("/api/embed", content='{"model":"all-minilm","input":"pizza \\ud83c"}').json()
    plain = server.embed(input="pizza �")
    assert cut["embeddings"] == plain["embeddings"]


def test_options_that_do_not_concern_embedding_change_nothing(server: Server) -> None:
    plain = server.embed(input="a text")["embeddings"]
    options = {
        "temperature": 0,
        "stop": ["x"],
        "seed": 1.7,
        "num_batch": 2,
        "num_thread": 1,
        "use_mmap": None,
        "new": {},
    }
    assert server.embed(input="a text", options=options)["embeddings"] == plain


def test_a_text_is_cut_as_its_tokens_are(server: Server) -> None:
    words = "one two three four five six seven eight nine ten"
    cut = server.embed(input=words, options={"num_ctx": 7.9})
    assert cut["prompt_eval_count"] == 7
    assert cut["embeddings"] == server.embed(input="one two three four five")["embeddings"]


def test_a_client_that_leaves_costs_nothing_further(start: Callable[..., Server]) -> None:
    server = start("all-minilm")
    texts = [f"text number {i} " + "word " * 200 for i in range(3000)]
    body = json.dumps({"model": "all-minilm", "input": texts})
    with pytest.raises(httpx.ReadTimeout):
        server.client.post("/api/embed", content=body, timeout=httpx.Timeout(60, read=1.0))
    began = time.monotonic()
    server.embed(input="a query after the client has left")
    server.embed(input="and another")
    assert time.monotonic() - began < 30  # the texts left behind would take minutes
    server.stop()
    assert "status=499" in server.output()


def test_the_log_never_holds_a_text(start: Callable[..., Server]) -> None:
    server = start("all-minilm", "--log-level", "debug")
    secret = "a sentence that nobody else may read"
    server.embed(input=secret)
    server.client.post("/api/embed", json={"model": "all-minilm", "input": secret, "truncate": "x"})
    server.client.post("/api/embed", content=f'{{"model":"all-minilm","input":"{secret}')
    assert server.stop() == 0
    output = server.output()
    assert output.count("path=/api/embed") == 3
    assert "nobody else" not in output


def test_sigterm_under_load_loses_no_accepted_request(start: Callable[..., Server]) -> None:
    server = start("all-minilm")
    statuses: list[int] = []
    refused = threading.Event()

    def work() -> None:
        with httpx.Client(base_url=server.url, trust_env=False, timeout=60) as client:
            while True:
                try:
                    reply = client.post("/api/embed", json={"model": "all-minilm", "input": ["some text " * 20] * 16})
                except httpx.ConnectError:
                    refused.set()  # a new connection: the server is gone
                    return
                except httpx.RemoteProtocolError:
                    return  # an idle connection was closed as the next request was being written
                statuses.append(reply.status_code)
                if reply.headers.get("connection") == "close":
                    refused.set()
                    return

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    time.sleep(1)
    began = time.monotonic()
    assert server.stop() == 0
    assert time.monotonic() - began < 10
    for thread in threads:
        thread.join()
    assert statuses
    assert set(statuses) == {200}


@pytest.mark.parametrize("path", ["/api/embed", "/v1/embeddings", "/v1/embeddings base64", "/embed"])
def test_an_answer_of_many_vectors_is_whole(server: Server, path: str) -> None:
    texts = [f"text {n % 5}" for n in range(700)]
    truth = np.array(server.embed(input=texts[:5])["embeddings"], np.float32)
    form = {"encoding_format": "base64"} if path.endswith("base64") else {}
    reply = server.client.post(
        path.split()[0], json={"model": "all-minilm", "input": texts, "inputs": texts, "dimensions": 0, **form}
    )
    answer = reply.json()
    assert int(reply.headers["content-length"]) == len(reply.content)
    if path == "/api/embed":
        assert list(answer) == ["model", "embeddings", "total_duration", "load_duration", "prompt_eval_count"]
        rows = answer["embeddings"]
    elif path == "/embed":
        rows = answer
    else:
        assert [item["index"] for item in answer["data"]] == list(range(700))
        rows = [item["embedding"] for item in answer["data"]]
        if form:
            rows = [np.frombuffer(base64.b64decode(row), "<f4") for row in rows]
    assert np.abs(np.array(rows, np.float32) - truth[np.arange(700) % 5]).max() < 1e-6
