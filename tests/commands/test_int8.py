"""The int8 mode on real weights, as its users meet it."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pytest

import unitvec
from tests import conftest
from tests.conftest import Server
from tests.reference import make
from unitvec import promise
from unitvec.engine.processor import multiplies_int8
from unitvec.local import Model

pytestmark = pytest.mark.skipif(not multiplies_int8(), reason="this processor is not faster in int8, or not exact")


@pytest.fixture(scope="module")
def small(all_minilm: str) -> Iterator[Model]:
    with unitvec.load(all_minilm, dtype="int8") as loaded:
        yield loaded


@pytest.fixture(scope="module")
def exact(all_minilm: str) -> Iterator[Model]:
    with unitvec.load(all_minilm) as loaded:
        yield loaded


def test_the_promise(exact: Model, small: Model) -> None:
    assert (exact.dtype, small.dtype) == ("float32", "int8")
    kept = promise.measure(exact, small)
    assert kept.texts == 2000
    assert kept.queries >= 500
    assert kept.ndcg_before > 0.5  # the queries do belong to their texts
    assert kept.cosine_least < 0.99999  # it is not float32 by another name
    assert kept.holds, str(kept)


def test_near_sentence_transformers(small: Model) -> None:
    texts, wanted = make.load()
    cosines = np.einsum("ij,ij->i", small.embed(texts), wanted)
    assert cosines.mean() > 0.999
    assert cosines.min() > 0.997, texts[int(cosines.argmin())]  # among them are texts of nothing but odd symbols


def test_a_vector_does_not_depend_on_its_neighbours(small: Model) -> None:
    texts, _ = make.load()
    sample = texts[:60]
    together = small.embed(sample)
    alone = np.concatenate([small.embed(text) for text in sample])
    assert np.abs(together - alone).max() <= 1e-6


def test_a_server_in_int8_says_so(start: Callable[..., Server], exact: Model) -> None:
    server = start("all-minilm", "--dtype", "int8")
    vector = np.array(server.embed(input="Why is the sky blue?")["embeddings"])[0]
    assert 0.998 < vector @ exact.embed("Why is the sky blue?")[0] < 0.999999
    (running,) = server.client.get("/api/ps").json()["models"]
    assert running["dtype"] == "int8"
    assert server.client.post("/api/show", json={"model": "all-minilm"}).json()["dtype"] == "int8"


def test_a_models_own_parameter(start: Callable[..., Server]) -> None:
    """Kept vectors of the two are not mixed up, though their files are the same."""
    server = start("all-minilm", "--cache-mb", "16")
    body = {"model": "small8", "from": "all-minilm", "parameters": {"dtype": "int8"}, "stream": False}
    assert server.client.post("/api/create", json=body).status_code == 200
    try:
        vectors = [server.embed(model=model, input="the same text")["embeddings"] for model in ("all-minilm", "small8")]
        assert vectors[0] != vectors[1]
        again = [server.embed(model=model, input="the same text")["embeddings"] for model in ("all-minilm", "small8")]
        assert again == vectors
        dtypes = {model["name"]: model["dtype"] for model in server.client.get("/api/ps").json()["models"]}
        assert dtypes == {"all-minilm:latest": "float32", "small8:latest": "int8"}
        assert server.client.post("/api/show", json={"model": "small8"}).json()["dtype"] == "int8"
        shown = conftest.unitvec("show", "small8", timeout=60).stdout.decode()
        assert "int8" in shown
    finally:
        server.client.request("DELETE", "/api/delete", json={"model": "small8"})


def test_a_parameter_that_is_no_dtype(start: Callable[..., Server]) -> None:
    server = start("all-minilm")
    body = {"model": "odd", "from": "all-minilm", "parameters": {"dtype": "int4"}, "stream": False}
    reply = server.client.post("/api/create", json=body)
    assert reply.status_code == 400
    assert "float32 or int8, not 'int4'" in reply.json()["error"]
    assert "odd" not in server.client.get("/api/tags").text
