"""`unitvec serve` at the terminal."""

from __future__ import annotations

import contextlib
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import httpx
import pytest

from tests.conftest import Server, free_port, need, unitvec


def test_a_port_in_use_is_one_line_that_says_what_to_do() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        result = unitvec("serve", "--host", f"127.0.0.1:{port}")
    assert result.returncode == 1
    message = result.stderr.decode()
    assert message.count("\n") == 1
    assert "is Ollama running" in message
    assert "--host" in message


@pytest.mark.parametrize(
    ("arguments", "wrong"),
    [
        (["serve", "a b"], "invalid model name"),
        (["serve", "--host", "127.0.0.1:notaport"], "no port number"),
        (["serve", "--host", "/run/unitvec.sock"], "it is a path"),
        (["serve", "--host", "256.256.256.256:1"], "cannot listen"),
        (["serve", "--keep-alive", "soon"], "invalid duration"),
        (["serve", "--memory", "much"], "no size"),
        (["serve", "--ray", "all-minilm"], "name models before --ray"),
        (["serve", "--ray", "--min-replicas", "3", "--max-replicas", "2"], "is less than"),
        (["sevre"], "No such command"),
    ],
)
def test_a_mistake_is_named(arguments: list[str], wrong: str) -> None:
    result = unitvec(*arguments)
    assert result.returncode in (1, 2)
    assert wrong in result.stderr.decode()
    assert "Traceback" not in result.stderr.decode()


@pytest.mark.skipif(find_spec("ray") is not None, reason="Ray is installed")
def test_without_ray_a_cluster_says_what_to_install() -> None:
    result = unitvec("serve", "--ray", "--host", f"127.0.0.1:{free_port()}")
    assert result.returncode == 1
    assert result.stderr.decode() == "Error: a cluster needs Ray: pip install 'unitvec[ray]'\n"


def test_help_explains_each_setting_and_its_variable() -> None:
    text = unitvec("serve", "--help").stdout.decode()
    for variable in ["OLLAMA_HOST", "OLLAMA_ORIGINS", "OLLAMA_KEEP_ALIVE", "OLLAMA_CONTEXT_LENGTH", "OLLAMA_MAX_QUEUE"]:
        assert variable in text


def test_settings_come_from_ollamas_variables(start: Callable[..., Server]) -> None:
    server = start(environment={"OLLAMA_CONTEXT_LENGTH": "8", "OLLAMA_ORIGINS": "https://*.example.org"})
    origin = {"Origin": "https://app.example.org"}
    assert server.client.get("/", headers=origin).status_code == 200
    assert server.client.get("/", headers={"Origin": "https://example.com"}).status_code == 403
    assert server.embed(input="a text")["prompt_eval_count"] == 4  # the model's own num_ctx goes before


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_stops_when_told_and_exits_0(start: Callable[..., Server], number: signal.Signals) -> None:
    server = start("all-minilm")
    server.process.send_signal(number)
    assert server.process.wait(10) == 0
    assert "Traceback" not in server.output()


def test_the_first_lines_say_what_to_do_next(start: Callable[..., Server]) -> None:
    server = start("all-minilm")
    server.stop()
    text = server.output()
    assert server.url in text
    assert "all-minilm:latest" in text
    assert "curl" in text


def test_keep_alive_is_acted_on(start: Callable[..., Server]) -> None:
    server = start()

    def resident() -> list[str]:
        return [model["name"] for model in server.client.get("/api/ps").json()["models"]]

    assert resident() == []
    server.embed(input="a", keep_alive=60)
    assert resident() == ["all-minilm:latest"]
    server.embed(input="a", keep_alive=0)
    assert resident() == []
    server.embed(input="a", keep_alive="300ms")
    assert resident() == ["all-minilm:latest"]
    deadline = time.monotonic() + 10
    while resident() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert resident() == []
    server.embed(input="a", keep_alive=-1)
    stop = server.client.post("/api/generate", json={"model": "all-minilm", "keep_alive": 0}).json()
    assert stop["done_reason"] == "unload"
    assert resident() == []


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_unloading_gives_the_memory_back(start: Callable[..., Server]) -> None:
    server = start()

    def resident() -> int:
        status = Path(f"/proc/{server.process.pid}/status").read_text()
        return int(status.split("VmRSS:")[1].split()[0]) >> 10

    empty = resident()
    server.embed(input="a")
    loaded = resident()
    assert loaded > empty + 80
    server.embed(input="a", keep_alive=0)
    deadline = time.monotonic() + 10
    while resident() > empty + 40 and time.monotonic() < deadline:
        time.sleep(0.1)
    assert resident() <= empty + 40  # what is left are libraries that the first model brought


def test_a_resident_model_answers_without_a_file(all_minilm: str, tmp_path: Path) -> None:
    """Every system call that takes a file's name is written down."""
    need("strace", "THAT ANSWERS TOUCH NO FILE IS")
    log = tmp_path / "calls"
    server = Server(
        all_minilm, under=["strace", "-D", "-f", "-qq", "--seccomp-bpf", "-e", "trace=%file", "-o", str(log)]
    )
    try:
        server.embed(input="the first one brings libraries in")
        server.embed(input=["several", "texts " * 300])
        before = log.read_text()
        for number in range(20):
            server.embed(input=f"text {number}")
        server.embed(input=["several", "texts " * 300])
        calls = log.read_text()[len(before) :]
        server.client.post("/api/show", json={"model": all_minilm})
        assert len(log.read_text()) > len(before)  # it is written down at once
    finally:
        server.close()
    assert "openat(" in before
    assert calls == ""


def test_a_missing_model_is_pulled_when_that_is_asked_for(start: Callable[..., Server], tmp_path: Path) -> None:
    server = start("--auto-pull", environment={"UNITVEC_HOME": str(tmp_path)})
    asked = [threading.Thread(target=server.embed, kwargs={"input": f"text {n}"}) for n in range(3)]
    for thread in asked:
        thread.start()
    for thread in asked:
        thread.join()
    assert [model["name"] for model in server.client.get("/api/tags").json()["models"]] == ["all-minilm:latest"]


def test_past_the_queues_bound_the_answer_is_503_at_once(start: Callable[..., Server]) -> None:
    server = start("all-minilm", environment={"OLLAMA_MAX_QUEUE": "2"})
    body = {"model": "all-minilm", "input": ["word " * 250] * 64}
    replies: list[httpx.Response] = []

    def ask(number: int) -> None:
        texts = [f"{number} {i} " + "word " * 240 for i in range(32)]
        replies.append(
            httpx.post(f"{server.url}/api/embed", json={**body, "input": texts}, timeout=60, trust_env=False)
        )

    threads = [threading.Thread(target=ask, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    refused = [reply for reply in replies if reply.status_code == 503]
    assert {reply.status_code for reply in replies} == {200, 503}
    for reply in refused:
        assert reply.json() == {"error": "server busy, please try again.  maximum pending requests exceeded"}
        assert int(reply.headers["Retry-After"]) >= 1


def test_damaged_weights_are_one_line(all_minilm: str, tmp_path: object) -> None:
    from unitvec import config
    from unitvec.store.name import Name

    stored = config.stores().find(Name.parse(all_minilm))
    assert stored is not None
    weights = Path(stored.weights) / "model.safetensors"
    whole = weights.read_bytes()
    try:
        weights.write_bytes(whole[:5000])
        result = unitvec("serve", "all-minilm", "--host", f"127.0.0.1:{free_port()}")
    finally:
        weights.write_bytes(whole)
    assert result.returncode == 1
    assert result.stderr.decode().startswith("Error: ")
    assert "Traceback" not in result.stderr.decode()


def test_a_full_queue_refuses_before_it_tokenizes(start: Callable[..., Server]) -> None:
    server = start("all-minilm", "--max-queue", "1")

    def metric(name: str) -> float:
        text = server.client.get("/metrics").text
        return float(next(line.split()[-1] for line in text.splitlines() if line.startswith(f"{name} ")))

    def ask(number: int) -> httpx.Response:
        texts = [f"{number} {i} " + "word " * 240 for i in range(64)]
        body = {"model": "all-minilm", "input": texts}
        return httpx.post(f"{server.url}/api/embed", json=body, timeout=120, trust_env=False)

    threads = [threading.Thread(target=ask, args=(n,)) for n in range(3)]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + 60
    while metric("unitvec_requests_total") + metric("unitvec_rejected_total") < 3 and time.monotonic() < deadline:
        time.sleep(0.01)
    before = metric('unitvec_step_seconds_total{step="tokenize"}')
    assert metric("unitvec_queue_requests") >= 1
    assert ask(9).status_code == 503
    assert metric('unitvec_step_seconds_total{step="tokenize"}') == before
    for thread in threads:
        thread.join()


def test_it_listens_on_ipv6_for_both_kinds(all_minilm: str, home: Path) -> None:
    port = free_port()
    try:
        socket.create_server(("::1", port), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("there is no IPv6 here")
    process = subprocess.Popen(
        [sys.executable, "-m", "unitvec", "serve", "--host", f"[::]:{port}"], stdout=subprocess.DEVNULL
    )
    try:
        for url in (f"http://[::1]:{port}", f"http://127.0.0.1:{port}"):
            transport = httpx.HTTPTransport(retries=8)
            with httpx.Client(transport=transport, base_url=url, timeout=20) as client:
                assert client.get("/").text == "Ollama is running"
    finally:
        process.terminate()
        process.wait(20)


def test_the_usual_limit_of_open_files_does_not_bound_connections(start: Callable[..., Server]) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard))
    try:
        server = start("all-minilm")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    with contextlib.ExitStack() as stack:
        for _ in range(150):
            peer = stack.enter_context(socket.create_connection(("127.0.0.1", server.port), timeout=20))
        peer.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert peer.recv(100).startswith(b"HTTP/1.1 200")
