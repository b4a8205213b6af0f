"""text-embeddings-inference's routes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from tests.conftest import Server


def test_its_three_paths_give_the_vectors_of_ollamas(server: Server) -> None:
    want = server.embed(input=["a", "b"])["embeddings"]
    for path in ("/embed", "/", "/invocations"):
        reply = server.client.post(path, json={"inputs": ["a", "b"]})
        assert reply.status_code == 200
        np.testing.assert_allclose(reply.json(), want, atol=1e-6)
    assert len(server.client.post("/embed", json={"inputs": "a", "dimensions": 64}).json()[0]) == 64


def test_it_cuts_only_when_told_to(server: Server) -> None:
    long = "word " * 400
    refused = server.client.post("/embed", json={"inputs": long})
    assert refused.status_code == 413
    assert refused.json() == {"error": "the input length exceeds the context length", "error_type": "Validation"}
    assert server.client.post("/embed", json={"inputs": long, "truncate": True}).status_code == 200


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"inputs": None},
        {"inputs": []},
        {"inputs": 7},
        {"inputs": "a", "truncate": "yes"},
        {"inputs": "a", "normalize": False},
        {"inputs": "a", "prompt_name": "query"},
        {"inputs": "a", "truncation_direction": "Left"},
    ],
)
def test_what_it_does_not_take(server: Server, body: dict[str, object]) -> None:
    reply = server.client.post("/embed", json=body)
    assert reply.status_code == 422
    assert reply.json()["error_type"] == "Validation"


def test_info_and_health(server: Server) -> None:
    told = server.client.get("/info").json()
    assert told["model_id"] == "all-minilm:latest"
    assert told["max_input_length"] == 256
    assert told["model_type"] == {"embedding": {"pooling": "mean"}}
    assert server.client.get("/health").status_code == 200


def test_without_a_model_on_the_command_line_it_takes_the_only_one_in_memory(start: Callable[..., Server]) -> None:
    empty = start()
    reply = empty.client.post("/embed", json={"inputs": "a"})
    assert reply.status_code == 404
    assert "unitvec serve MODEL" in reply.json()["error"]
    empty.embed(input="load it")
    assert empty.client.post("/embed", json={"inputs": "a"}).status_code == 200
