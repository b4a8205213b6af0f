"""OpenAI's API beyond the recorded cases."""

from __future__ import annotations

import base64

import numpy as np
import pytest

from tests.conftest import Server

SKY = "Why is the sky blue?"
SKY_IDS = [101, 2339, 2003, 1996, 3712, 2630, 1029, 102]


def post(server: Server, **body: object) -> tuple[int, dict]:
    reply = server.client.post("/v1/embeddings", json={"model": "all-minilm", **body})
    return reply.status_code, reply.json()


def vectors(server: Server, **body: object) -> np.ndarray:
    status, answer = post(server, **body)
    assert status == 200, answer
    assert [item["index"] for item in answer["data"]] == list(range(len(answer["data"])))
    return np.array([item["embedding"] for item in answer["data"]], np.float32)


def test_token_ids_give_the_vectors_of_their_text(server: Server) -> None:
    text = vectors(server, input=SKY)
    np.testing.assert_allclose(vectors(server, input=SKY_IDS), text, atol=1e-6)
    several = vectors(server, input=[SKY_IDS, [101, 1038, 102], SKY_IDS])
    np.testing.assert_allclose(several, vectors(server, input=[SKY, "b", SKY]), atol=1e-6)


def test_base64_is_the_same_numbers(server: Server) -> None:
    _, answer = post(server, input=[SKY, "b"], encoding_format="BASE64", dimensions=100)
    packed = [np.frombuffer(base64.b64decode(item["embedding"]), "<f4") for item in answer["data"]]
    assert np.array_equal(packed, vectors(server, input=[SKY, "b"], dimensions=100))


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([[]], "token ids must be between 0 and 30521"),
        ([101, -1], "token ids must be between 0 and 30521"),
        ([101, 30522], "token ids must be between 0 and 30521"),
        ([101, 1.5], "invalid input type"),
        ([True], "invalid input type"),
        (["a", 101], "invalid input type"),
        ([[101], "a"], "invalid input type"),
        ({"text": "a"}, "invalid input type"),
        (7, "invalid input type"),
    ],
)
def test_what_is_no_input(server: Server, value: object, message: str) -> None:
    status, answer = post(server, input=value)
    assert status == 400
    assert answer["error"]["message"].startswith(message)
    assert answer["error"]["type"] == "invalid_request_error"


def test_unknown_fields_and_a_user_are_let_through(server: Server) -> None:
    assert len(vectors(server, input=SKY, user="somebody", metadata={"a": [1]})) == 1


def test_a_model_by_any_of_its_names(server: Server) -> None:
    for name in ("all-minilm", "ALL-MINILM:latest", "library/all-minilm", "registry.ollama.ai/library/all-minilm"):
        reply = server.client.get(f"/v1/models/{name}")
        assert reply.status_code == 200, name
        assert reply.json()["id"] == name


def test_errors_outside_the_handlers_have_openais_form_too(server: Server) -> None:
    body = b'{"model":"all-minilm","input":"' + b"a" * (65 << 20) + b'"}'
    reply = server.client.post("/v1/embeddings", content=body)
    assert reply.status_code == 413
    assert reply.json()["error"]["type"] == "invalid_request_error"
