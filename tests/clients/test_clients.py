"""Clients as people install them, through the calls that their documentation shows."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

from tests.clients.environments import Client
from tests.conftest import Server

TEXTS = ["Why is the sky blue?", "Rayleigh scattering", "Der Himmel ist blau, weil das Licht gestreut wird."]

# Small enough to be installed and run each time.
ALWAYS = [
    Client("curl", "", "curl.sh"),
    Client("ollama", "0.6.3", "ollama_sync.py"),
    Client("ollama", "0.6.3", "ollama_async.py"),
    Client("openai", "3.54.0", "openai_sync.py"),
    Client("openai", "3.54.0", "openai_async.py"),
]
MARKED = [
    Client("langchain-ollama", "1.1.0", "langchain_ollama_.py"),
    Client("langchain-openai", "1.7.3", "langchain_openai_.py"),
    Client("llama-index-embeddings-ollama", "0.10.0", "llama_index_ollama.py"),
    Client("chromadb", "1.5.9", "chroma.py", needs=("ollama==0.6.3",)),
    Client("ollama-haystack", "7.0.2", "haystack_.py"),
    Client("litellm", "1.106.2", "litellm_.py"),
    # 1.2.3 takes names of the Hugging Face hub only, no server's address.
    Client("langchain-huggingface", "1.2.0", "langchain_tei.py", "exceeds the context length", ("numpy",)),
    # It does not look at the status: whatever a server answers, an error's object has no first vector.
    Client("llama-index-embeddings-text-embeddings-inference", "0.6.0", "llama_index_tei.py", "KeyError"),
    Client("ollama", "0.6.4", "ollama.mjs"),
    Client("openai", "7.57.0", "openai.mjs"),
]


@pytest.mark.parametrize("client", [*ALWAYS, *(pytest.param(c, marks=pytest.mark.clients) for c in MARKED)], ids=str)
def test_a_client_gets_the_vectors_right(client: Client, server: Server) -> None:
    if client.script.endswith(".mjs") and not shutil.which("npm"):
        pytest.skip("npm is not installed")
    if client.package == "curl" and not shutil.which("curl"):
        pytest.skip("curl is not installed")
    truth = np.array(server.embed(input=TEXTS)["embeddings"], np.float64)
    done = client.run(server.url, json.dumps(TEXTS))
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout.splitlines()[-1])
    assert np.shape(answer["many"]) == truth.shape
    assert np.sum(np.array(answer["one"]) * truth[0]) > 0.999999
    assert np.all(np.sum(np.array(answer["many"]) * truth, axis=1) > 0.999999)
    assert client.error in answer["error"]
