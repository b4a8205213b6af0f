"""The Hugging Face library against a small hub of this machine's own."""

import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from tiny_model import write_model_folder

COMMIT = "0123456789abcdef0123456789abcdef01234567"

PULL = """
import sys
from pathlib import Path
from unitvec.errors import UnitvecError
from unitvec.store.name import Name
from unitvec.store.stores import Stores
try:
    model = Stores(Path(sys.argv[2])).pull(Name.parse(sys.argv[1]), lambda step: print(step.status), source="hub")
    print(model.name.short, model.open().spec.embedding_length)
except UnitvecError as error:
    print(error.status, error.message)
"""


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[str]:
    """``HOST:PORT`` of a hub with User/Tiny, and User/Torch that has no safetensors."""
    folder = write_model_folder(tmp_path / "hub")
    files = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    repositories = {
        "User/Tiny": files | {"pytorch_model.bin": b"never asked for"},
        "User/Torch": {"config.json": b"{}"},
    }

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            pass

        def answer(self) -> None:
            path = urlsplit(self.path).path
            for repository, contents in repositories.items():
                if path.startswith(f"/api/models/{repository}/tree/"):
                    return self.send(json.dumps([describe(name, data) for name, data in contents.items()]).encode())
                if path.startswith(f"/api/models/{repository}"):
                    siblings = [{"rfilename": name} for name in contents]
                    return self.send(json.dumps({"id": repository, "sha": COMMIT, "siblings": siblings}).encode())
                if path.startswith(f"/{repository}/resolve/"):
                    return self.send_file(contents[path.split("/", 5)[5]])
            return self.send(b'{"error": "Repository not found"}', 404, {"X-Error-Code": "RepoNotFound"})

        def send_file(self, data: bytes) -> None:
            asked = (self.headers["range"] or "bytes=0-").removeprefix("bytes=").partition("-")
            part = data[int(asked[0]) :]
            headers = {
                "ETag": f'"{hashlib.sha256(data).hexdigest()}"',
                "X-Repo-Commit": COMMIT,
                "Content-Range": f"bytes {asked[0]}-{len(data) - 1}/{len(data)}",
            }
            self.send(part, 206 if self.headers["range"] else 200, headers)

        def send(self, body: bytes, status: int = 200, headers: dict[str, str] | None = None) -> None:
            self.send_response(status)
            for key, value in (headers or {}).items():
                self.send_header(key, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        do_GET = do_HEAD = answer  # noqa: N815

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    yield f"127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


def describe(name: str, data: bytes) -> dict[str, object]:
    return {"type": "file", "path": name, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}


def pull(hub: str, name: str, home: Path) -> list[str]:
    environment = os.environ | {"HF_ENDPOINT": f"http://{hub}", "HF_HOME": str(home / "hf"), "HF_HUB_DISABLE_XET": "1"}
    command = [sys.executable, "-c", PULL, name, str(home / "data")]
    told = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert told.returncode == 0, told.stderr
    return told.stdout.splitlines()


def test_a_repository_of_safetensors(hub: str, tmp_path: Path) -> None:
    told = pull(hub, "hf.co/User/Tiny", tmp_path)
    assert told[0] == "pulling manifest"
    assert told[-4:] == ["verifying sha256 digest", "writing manifest", "success", "hf.co/User/Tiny:latest 8"]
    kept = {path.name for path in (tmp_path / "data" / "folders").rglob("*")}
    assert "pytorch_model.bin" not in kept


def test_no_safetensors(hub: str, tmp_path: Path) -> None:
    assert pull(hub, "hf.co/User/Torch", tmp_path)[-1] == "502 User/Torch has neither GGUF nor safetensors files"


def test_no_such_repository(hub: str, tmp_path: Path) -> None:
    assert pull(hub, "hf.co/User/Nope", tmp_path)[-1].startswith("404 User/Nope is not there")


def test_no_hub(tmp_path: Path) -> None:
    assert pull("127.0.0.1:9", "huggingface.co/User/Tiny", tmp_path)[-1].startswith("502 no connection")
