"""The API for models that come and go, through a real server and, where it can, Ollama's own client."""

import json
import os
import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import ollama
import pytest
from real_registry import PARAMS, WEIGHTS, Proxy, sha256
from tests.conftest import Server, unitvec
from tests.models.tiny import bert
from tiny_model import write_model_folder

GGUF = Path(__file__).parents[3] / "shared" / "models" / "all-minilm-f16.gguf"


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Server]:
    """A server with empty stores."""
    server = Server(environment={"UNITVEC_HOME": str(tmp_path / "home"), "OLLAMA_MODELS": str(tmp_path / "ollama")})
    yield server
    server.close()


def lines(reply: httpx.Response) -> list[dict[str, object]]:
    assert reply.headers["content-type"] == "application/x-ndjson"
    return [json.loads(line) for line in reply.text.splitlines()]


def upload(server: Server, data: bytes) -> str:
    digest = sha256(data)
    assert server.client.post(f"/api/blobs/{digest}", content=data).status_code in (200, 201)
    return digest


def put_folder(server: Server, name: str, folder: Path, **parameters: object) -> None:
    files = {
        str(path.relative_to(folder)): upload(server, path.read_bytes()) for path in folder.rglob("*") if path.is_file()
    }
    body = {"model": name, "files": files, "parameters": parameters}
    assert lines(server.client.post("/api/create", json=body))[-1] == {"status": "success"}


ZEROS = "sha256:" + "0" * 64


def names(server: Server) -> list[str]:
    return [model["name"] for model in server.client.get("/api/tags").json()["models"]]


def test_pull_tells_each_step(running: Server, proxy: Proxy, tmp_path: Path) -> None:
    body = {"model": f"http://{proxy.host}/library/m", "insecure": True}
    told = lines(running.client.post("/api/pull", json=body))
    assert told[0] == {"status": "pulling manifest"}
    digest = sha256(WEIGHTS)
    pulled = {"status": f"pulling {digest[7:19]}", "digest": digest, "total": len(WEIGHTS), "completed": len(WEIGHTS)}
    assert pulled in told
    assert told[-3:] == [{"status": s} for s in ("verifying sha256 digest", "writing manifest", "success")]
    assert (tmp_path / "ollama" / "manifests" / proxy.host / "library" / "m" / "latest").exists()
    assert running.client.post("/api/pull", json={**body, "stream": False}).json() == {"status": "success"}


def test_pull_through_ollamas_client(running: Server, proxy: Proxy) -> None:
    client = ollama.Client(running.url)
    steps = list(client.pull(f"{proxy.host}/library/m", insecure=True, stream=True))
    client.close()
    assert steps[-1].status == "success"
    assert any(step.completed == step.total == len(WEIGHTS) for step in steps)


@pytest.mark.parametrize(
    ("model", "status", "message"),
    [
        ("http://{host}/library/nope", 404, "pull model manifest: file does not exist"),
        ("http://127.0.0.1:9/library/m", 502, "pull model manifest: no connection to 127.0.0.1"),
        ("a//b", 400, "invalid model name"),
        ("", 400, "invalid model name"),
    ],
)
def test_pull_errors(running: Server, proxy: Proxy, model: str, status: int, message: str) -> None:
    body = {"model": model.format(host=proxy.host), "insecure": True}
    reply = running.client.post("/api/pull", json={**body, "stream": False})
    assert reply.status_code == status
    assert reply.json()["error"].startswith(message)
    reply = running.client.post("/api/pull", json=body)
    if status == 400:
        assert reply.status_code == 400
    else:
        assert lines(reply)[0] == {"status": "pulling manifest"}
        assert str(lines(reply)[-1]["error"]).startswith(message)


def test_a_pull_whose_client_goes_away_stops(running: Server, proxy: Proxy) -> None:
    proxy.faults.rate = 1e6
    body = {"model": f"{proxy.host}/library/m", "insecure": True}
    with running.client.stream("POST", "/api/pull", json=body) as reply:
        for line in reply.iter_lines():
            if json.loads(line).get("completed"):
                break
    proxy.faults.rate = None
    assert running.client.post("/api/pull", json={**body, "stream": False}).status_code == 200
    assert proxy.blob_bytes < 2 * len(WEIGHTS)


def test_blobs(running: Server) -> None:
    data = b"some blob" * 1000
    path = f"/api/blobs/{sha256(data)}"
    assert running.client.head(path).status_code == 404
    assert running.client.post(path, content=data).status_code == 201
    assert running.client.post(path, content=data).status_code == 200
    assert running.client.head(path).status_code == 200
    wrong = "sha256:" + "0" * 64
    reply = running.client.post(f"/api/blobs/{wrong}", content=data)
    assert reply.status_code == 400
    assert reply.json() == {"error": f'digest mismatch, expected "{wrong}", got "{sha256(data)}"'}
    assert running.client.head(f"/api/blobs/{wrong}").status_code == 404
    for bad in ("sha256:abc", "..%2F..%2Fetc%2Fpasswd", "sha256:" + "g" * 64):
        assert running.client.post(f"/api/blobs/{bad}", content=data).status_code in (400, 404)


def test_create_copy_embed_delete(running: Server, tmp_path: Path) -> None:
    folder = write_model_folder(tmp_path / "tiny")
    put_folder(running, "tiny", folder, num_ctx=16)
    assert names(running) == ["tiny:latest"]
    assert running.client.post("/api/copy", json={"source": "tiny", "destination": "me/two"}).status_code == 200
    derived = {"model": "three", "from": "me/two", "parameters": {"num_ctx": 8}, "stream": False}
    assert running.client.post("/api/create", json=derived).json() == {"status": "success"}
    shown = running.client.post("/api/show", json={"model": "three"}).json()
    assert shown["parameters"].split() == ["num_ctx", "8"]
    assert sorted(names(running)) == ["me/two:latest", "three:latest", "tiny:latest"]
    for model in ("tiny", "ME/TWO", "three"):
        reply = running.client.request("DELETE", "/api/delete", json={"model": model})
        assert (reply.status_code, reply.content) == (200, b"")
    assert names(running) == []
    assert not list((tmp_path / "home" / "folders").iterdir())


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "message"),
    [
        ("POST", "/api/create", {"model": "q"}, 400, "neither 'from' or 'files' was specified"),
        ("POST", "/api/create", {"model": "a//b", "from": "x"}, 400, "invalid model name"),
        ("POST", "/api/create", {"model": "q", "files": {"../x": ZEROS}}, 400, "file path must be relative"),
        ("POST", "/api/create", {"model": "q", "files": {"x.gguf": ""}}, 400, "invalid digest format"),
        ("POST", "/api/create", {"model": "q", "files": {"x.gguf": 3}}, 400, '"files" must be'),
        ("POST", "/api/create", {"model": "q", "from": 3}, 400, '"from" must be a string'),
        ("POST", "/api/create", {"model": "q", "from": "x", "quantize": "Q4"}, 400, '"quantize" is not supported'),
        ("POST", "/api/copy", {"source": "nope", "destination": "x"}, 404, 'model "nope" not found'),
        ("POST", "/api/copy", {"source": "", "destination": "x"}, 400, 'source "" is invalid'),
        ("POST", "/api/copy", {"source": "x", "destination": "a b"}, 400, 'destination "a b" is invalid'),
        ("DELETE", "/api/delete", {"model": "nope"}, 404, "model 'nope' not found"),
        ("DELETE", "/api/delete", {"model": "../x"}, 400, 'name "../x" is invalid'),
        ("POST", "/api/push", {}, 400, "model is required"),
        ("POST", "/api/pull", {"model": "x", "insecure": "yes"}, 400, '"insecure" must be a boolean'),
        ("POST", "/api/pull", {"model": "x", "source": "moon"}, 400, '"source" must be one of'),
    ],
)  # fmt: skip
def test_mistakes(server: Server, method: str, path: str, body: object, status: int, message: str) -> None:
    reply = server.client.request(method, path, json=body)
    assert reply.status_code == status
    assert reply.json()["error"].startswith(message)


def blobs(folder: Path) -> list[str]:
    return [path.name for path in folder.rglob("sha256-*")]


def test_what_ollama_cannot_run_never_touches_its_store(running: Server, tmp_path: Path) -> None:
    folder = write_model_folder(tmp_path / "tiny")
    weights = (folder / "model.safetensors").read_bytes()
    digest = upload(running, weights)
    assert running.client.head(f"/api/blobs/{digest}").status_code == 200
    assert blobs(tmp_path / "ollama") == []
    put_folder(running, "tiny", folder)
    assert blobs(tmp_path / "ollama") == blobs(tmp_path / "home" / "models") == []
    assert list((tmp_path / "home" / "uploads").iterdir()) == []
    assert running.embed(model="tiny", input="a")["prompt_eval_count"] == 1


def test_a_damaged_blob_is_sent_and_kept_anew(running: Server, tmp_path: Path) -> None:
    data = bert().write(tmp_path / "m.gguf").read_bytes()
    path = tmp_path / "ollama" / "blobs" / sha256(data).replace(":", "-")
    body = {"model": "mini", "files": {"m.gguf": upload(running, data)}, "stream": False}
    for damage in (data[:-9], bytes(len(data))):
        path.write_bytes(damage)
        assert running.client.head(f"/api/blobs/{sha256(data)}").status_code == 404
        assert "not found" in running.client.post("/api/create", json=body).json()["error"]
        assert running.client.post(f"/api/blobs/{sha256(data)}", content=data).status_code == 201
        assert path.read_bytes() == data
        assert running.client.post("/api/create", json=body).json() == {"status": "success"}
    assert len(running.embed(model="mini", input="a")["embeddings"][0]) == 64


def test_a_part_of_a_model_says_what_to_do(running: Server, tmp_path: Path) -> None:
    path = bert().write(tmp_path / "whole.gguf")
    parts = {f"m-0000{n}-of-00002.gguf": upload(running, path.read_bytes() + bytes(n)) for n in (1, 2)}
    for files in (parts, dict(list(parts.items())[:1])):
        reply = running.client.post("/api/create", json={"model": "m", "files": files, "stream": False})
        assert (reply.status_code, reply.json()["error"].count("llama-gguf-split --merge")) == (400, 1)


def test_a_base_is_fetched_from_where_that_is_asked_for(running: Server) -> None:
    body = {"model": "mine", "from": "127.0.0.1:9/some/model", "source": "package-index", "stream": False}
    reply = running.client.post("/api/create", json=body)
    assert reply.status_code == 502
    assert reply.json()["error"].endswith("tried nothing, no such source offers it")


def test_models_take_turns_where_there_is_room_for_one(tmp_path: Path) -> None:
    folders = {"UNITVEC_HOME": str(tmp_path / "home"), "OLLAMA_MODELS": str(tmp_path / "ollama")}
    server = Server(environment=folders | {"OLLAMA_MAX_LOADED_MODELS": "1"})
    replies: list[httpx.Response] = []

    def ask(model: str) -> None:
        body = {"model": model, "input": ["a"] * 500}
        replies.append(httpx.post(f"{server.url}/api/embed", json=body, timeout=60, trust_env=False))

    try:
        for seed, name in enumerate(("one", "two")):
            put_folder(server, name, write_model_folder(tmp_path / name, seed))
        threads = [threading.Thread(target=ask, args=(name,)) for name in ("one", "two") * 8]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert [reply.status_code for reply in replies] == [200] * 16
        assert len(server.client.get("/api/ps").json()["models"]) == 1
    finally:
        server.close()


@pytest.fixture
def pinned(tmp_path: Path) -> Iterator[Server]:
    """A server that keeps a model named tiny in memory."""
    environment = {"UNITVEC_HOME": str(tmp_path / "home"), "OLLAMA_MODELS": str(tmp_path / "ollama")}
    folder = write_model_folder(tmp_path / "first")
    made = unitvec(
        "create", "tiny", "--from", str(folder), env=os.environ | environment | {"OLLAMA_HOST": "127.0.0.1:9"}
    )
    assert made.returncode == 0, made.stderr
    server = Server("tiny", environment=environment)
    yield server
    server.close()


def loads(server: Server) -> int:
    line = re.search(r"^unitvec_loads_total (\d+)", server.client.get("/metrics").text, re.MULTILINE)
    assert line
    return int(line[1])


def test_a_pinned_model_is_loaded_anew_when_it_changes_and_only_then(pinned: Server, tmp_path: Path) -> None:
    assert loads(pinned) == 1
    before = pinned.embed(model="tiny", input="a")["embeddings"]
    put_folder(pinned, "tiny", tmp_path / "first")
    assert pinned.client.post("/api/copy", json={"source": "tiny", "destination": "TINY"}).status_code == 200
    assert len(pinned.client.get("/api/ps").json()["models"]) == 1
    assert loads(pinned) == 1
    put_folder(pinned, "tiny", write_model_folder(tmp_path / "second", seed=1))
    deadline = time.monotonic() + 20
    while loads(pinned) == 1 and time.monotonic() < deadline:
        time.sleep(0.02)
    assert loads(pinned) == 2  # nobody has asked for it
    assert pinned.embed(model="tiny", input="a")["embeddings"] != before
    assert loads(pinned) == 2


def test_create_from_what_is_no_model(running: Server) -> None:
    for path, data, message in (
        ("x.gguf", b"not a model", "supplied file was not in GGUF format"),
        ("x", b"not a model", "unknown type"),
        ("x.gguf", b"GGUF\x03\0\0\0cut", ""),
        ("model.safetensors", b"not a model", "cannot read"),
    ):
        body = {"model": "q", "files": {path: upload(running, data)}, "stream": False}
        reply = running.client.post("/api/create", json=body)
        assert reply.status_code == 400
        assert message in reply.json()["error"]
        assert "\n" not in reply.json()["error"]
    missing = {"model": "q", "files": {"x.gguf": "sha256:" + "0" * 64}, "stream": False}
    assert "not found" in running.client.post("/api/create", json=missing).json()["error"]
    assert names(running) == []


def test_a_model_in_memory_gives_way_to_its_new_version(running: Server, tmp_path: Path) -> None:
    put_folder(running, "tiny", write_model_folder(tmp_path / "one"))
    before = running.embed(model="tiny", input="a")["embeddings"]
    put_folder(running, "tiny", write_model_folder(tmp_path / "two", seed=1))
    after = running.embed(model="tiny", input="a")["embeddings"]
    assert before != after
    running.client.request("DELETE", "/api/delete", json={"model": "tiny"})
    assert running.client.post("/api/embed", json={"model": "tiny", "input": "a"}).status_code == 404


def test_push_and_pull_again(running: Server, registry: str, tmp_path: Path) -> None:
    source = {"model": f"{registry}/library/m", "insecure": True, "stream": False}
    assert running.client.post("/api/pull", json=source).status_code == 200
    target = f"{registry}/pushed/copy:v1"
    running.client.post("/api/copy", json={"source": f"{registry}/library/m", "destination": target})
    told = lines(running.client.post("/api/push", json={"model": target, "insecure": True}))
    assert told[0] == {"status": "retrieving manifest"}
    assert told[-2:] == [{"status": "pushing manifest"}, {"status": "success"}]
    digest = httpx.head(f"http://{registry}/v2/pushed/copy/blobs/{sha256(PARAMS)}", trust_env=False)
    assert digest.status_code == 200
    running.client.request("DELETE", "/api/delete", json={"model": target})
    assert (
        running.client.post("/api/pull", json={"model": target, "insecure": True, "stream": False}).status_code == 200
    )
    manifests = tmp_path / "ollama" / "manifests" / registry
    assert (manifests / "pushed/copy/v1").read_bytes() == (manifests / "library/m/latest").read_bytes()
    missing = running.client.post("/api/push", json={"model": "nope", "stream": False})
    assert (missing.status_code, missing.json()["error"]) == (404, "model 'nope:latest' not found")


@pytest.mark.skipif(not GGUF.exists(), reason="the GGUF file is not at hand")
def test_a_real_gguf_from_upload_to_vector(running: Server, tmp_path: Path) -> None:
    body = {"model": "mini", "files": {"m.gguf": upload(running, GGUF.read_bytes())}, "parameters": {"num_ctx": 256}}
    told = [line["status"] for line in lines(running.client.post("/api/create", json=body))]
    assert told[0] == "parsing GGUF"
    assert told[1].startswith("using existing layer sha256:")
    assert told[2].startswith("creating new layer sha256:")
    assert told[3:] == ["writing manifest", "success"]
    assert len(running.embed(model="mini", input="hi")["embeddings"][0]) == 384
    manifest = json.loads((tmp_path / "ollama/manifests/registry.ollama.ai/library/mini/latest").read_bytes())
    config = tmp_path / "ollama" / "blobs" / manifest["config"]["digest"].replace(":", "-")
    described = json.loads(config.read_bytes())
    assert (described["model_family"], described["model_type"], described["file_type"]) == ("bert", "22.57M", "F16")
