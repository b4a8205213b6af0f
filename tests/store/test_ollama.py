"""Ollama's layout, written by hand as Ollama writes it."""

import hashlib
import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from unitvec.errors import InvalidCheckpoint, NotWritable
from unitvec.store.create import Recipe, create
from unitvec.store.manifest import Manifest
from unitvec.store.name import Name
from unitvec.store.ollama import OllamaStore
from unitvec.store.progress import silent
from unitvec.store.stores import Stores

MODEL, PARAMS = "application/vnd.ollama.image.model", "application/vnd.ollama.image.params"
TEMPLATE = "application/vnd.ollama.image.template"
GGUF = Path(__file__).parents[3] / "shared" / "models" / "all-minilm-f16.gguf"


def add_blob(root: Path, data: bytes) -> dict[str, object]:
    hexadecimal = hashlib.sha256(data).hexdigest()
    path = root / "blobs" / f"sha256-{hexadecimal}"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return {"digest": f"sha256:{hexadecimal}", "size": len(data)}


def add_model(root: Path, name: str, layers: dict[str, bytes], config: bytes = b'{"model_format":"gguf"}') -> bytes:
    described = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.docker.distribution.manifest.v2+json",
        "config": {"mediaType": "application/vnd.docker.container.image.v1+json", **add_blob(root, config)},
        "layers": [{"mediaType": kind, **add_blob(root, data)} for kind, data in layers.items()],
    }
    data = json.dumps(described).encode()
    path = root / "manifests" / Name.parse(name).path
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return data


@pytest.fixture
def store(tmp_path: Path) -> OllamaStore:
    return OllamaStore(tmp_path)


def blobs(store: OllamaStore) -> int:
    return len(list(store.blobs.root.iterdir()))


def test_finds_what_ollama_has_written(store: OllamaStore) -> None:
    data = add_model(
        store.root, "bob/Tiny:v1", {MODEL: b"GGUF...", PARAMS: b'{"num_ctx":77}', TEMPLATE: b"{{ .Prompt }}!"}
    )
    model = store.find(Name.parse("BOB/tiny:V1"))
    assert model is not None
    assert model.name.short == "bob/Tiny:v1"
    assert model.digest == hashlib.sha256(data).hexdigest()
    assert (model.parameters, model.template) == ({"num_ctx": 77}, "{{ .Prompt }}!")
    assert model.size == 7 + 14 + 14 + 23
    assert Path(model.weights).read_bytes() == b"GGUF..."
    assert store.find(Name.parse("bob/tiny")) is None
    assert [listed.name.short for listed in store.list()] == ["bob/Tiny:v1"]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda root: _manifest(root).write_bytes(b'{"schemaVersion": 2, "lay'), "damaged manifest"),
        (lambda root: _manifest(root).write_bytes(b'{"layers": [{"digest": "../.."}]}'), "not a layer"),
        (lambda root: _manifest(root).write_bytes(b"[]"), "not a JSON object"),
        (lambda root: _blob(root, b'{"num_ctx":1}').unlink(), "cannot read blob"),
        (lambda root: _blob(root, b'{"num_ctx":1}').write_bytes(b'{"num_ctx":2}'), "damaged blob"),
    ],
)  # fmt: skip
def test_a_damaged_model_is_told_not_listed_and_can_be_removed(
    store: OllamaStore, damage: object, message: str
) -> None:
    add_model(store.root, "tiny", {MODEL: b"GGUF...", PARAMS: b'{"num_ctx":1}'})
    add_model(store.root, "other", {MODEL: b"GGUF.."})
    damage(store.root)  # type: ignore[operator]
    with pytest.raises(InvalidCheckpoint, match=message):
        store.find(Name.parse("tiny"))
    assert [model.name.short for model in store.list()] == ["other:latest"]
    assert store.remove(Name.parse("tiny"))
    assert store.find(Name.parse("tiny")) is None


def _manifest(root: Path) -> Path:
    return root / "manifests" / Name.parse("tiny").path


def _blob(root: Path, data: bytes) -> Path:
    return root / "blobs" / f"sha256-{hashlib.sha256(data).hexdigest()}"


@pytest.mark.parametrize("cut", [None, b"GG"])
def test_missing_or_cut_weights_are_one_line(store: OllamaStore, cut: bytes | None) -> None:
    add_model(store.root, "tiny", {MODEL: b"GGUF..."})
    _blob(store.root, b"GGUF...").unlink() if cut is None else _blob(store.root, b"GGUF...").write_bytes(cut)
    model = store.find(Name.parse("tiny"))
    assert model is not None
    with pytest.raises(InvalidCheckpoint, match=r"^damaged model tiny:latest: blob sha256:\w+ is missing or cut off"):
        model.open()


def test_what_cannot_be_run_says_why(store: OllamaStore) -> None:
    add_model(store.root, "llava", {MODEL: b"GGUF...", "application/vnd.ollama.image.projector": b"GGUF"})
    model = store.find(Name.parse("llava"))
    assert model is not None
    with pytest.raises(InvalidCheckpoint, match="consists of model, projector"):
        model.open()


def test_verify_finds_a_changed_byte(store: OllamaStore) -> None:
    add_model(store.root, "tiny", {MODEL: b"GGUF...", PARAMS: b"{}"})
    whole: list[tuple[str, int]] = []
    store.verify(Name.parse("tiny"), lambda digest, size: whole.append((digest, size)))
    assert [size for _, size in whole] == [7, 2, 23]
    _blob(store.root, b"GGUF...").write_bytes(b"GGUF.,.")
    with pytest.raises(InvalidCheckpoint, match="digest mismatch, file must be downloaded again: want sha256:"):
        store.verify(Name.parse("tiny"), lambda *_: None)


def test_removing_keeps_blobs_that_others_need(store: OllamaStore) -> None:
    add_model(store.root, "one", {MODEL: b"shared", PARAMS: b'{"num_ctx":1}'})
    add_model(store.root, "two", {MODEL: b"shared", PARAMS: b'{"num_ctx":2}'})
    partial = store.blobs.partial("sha256:" + "0" * 64)
    partial.write_bytes(b"on its way")
    stranger = store.root / "blobs" / ("sha256-" + "1" * 64)
    stranger.write_bytes(b"just uploaded")
    assert blobs(store) == 6
    assert store.remove(Name.parse("ONE"))
    assert blobs(store) == 5
    assert store.find(Name.parse("two")) is not None
    assert not (store.root / "manifests/registry.ollama.ai/library/one").exists()
    assert store.remove(Name.parse("two"))
    assert {path.name for path in store.blobs.root.iterdir()} == {partial.name, stranger.name}
    assert not store.remove(Name.parse("two"))


def test_copies_are_byte_for_byte(store: OllamaStore) -> None:
    data = add_model(store.root, "one", {MODEL: b"shared"})
    assert store.copy(Name.parse("one"), Name.parse("h:1/n/two:t"))
    assert (store.root / "manifests/h:1/n/two/t").read_bytes() == data
    assert store.copy(Name.parse("one"), Name.parse("ONE"))
    assert store.copy(Name.parse("nope"), Name.parse("x")) is False
    assert len(store.list()) == 2
    store.remove(Name.parse("one"))
    assert blobs(store) == 2


def test_a_manifest_waits_for_all_its_blobs(store: OllamaStore) -> None:
    data = add_model(store.root, "one", {MODEL: b"shared"})
    shutil.rmtree(store.root / "manifests")
    _blob(store.root, b"shared").unlink()
    missing = store.put(Name.parse("one"), Manifest.parse(data))
    assert [layer.size for layer in missing] == [6]
    assert store.list() == []
    add_blob(store.root, b"shared")
    assert store.put(Name.parse("one"), Manifest.parse(data)) == ()
    assert len(store.list()) == 1


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_store_is_served_and_others_are_written(tmp_path: Path) -> None:
    add_model(tmp_path / "ollama", "tiny", {MODEL: b"GGUF..."})
    (tmp_path / "ollama").chmod(0o500)
    stores = Stores(tmp_path / "data", tmp_path / "ollama")
    assert stores.find(Name.parse("tiny")) is not None
    assert stores.writable().root == tmp_path / "data" / "models"
    with pytest.raises(NotWritable):
        stores.remove(Name.parse("tiny"))


def test_a_store_changed_by_somebody_else_is_seen(store: OllamaStore) -> None:
    assert store.list() == []
    add_model(store.root, "tiny", {MODEL: b"one"})
    first = store.find(Name.parse("tiny"))
    add_model(store.root, "tiny", {MODEL: b"two"})
    second = store.find(Name.parse("tiny"))
    assert first is not None
    assert second is not None
    assert first.digest != second.digest
    shutil.rmtree(store.root)
    assert store.find(Name.parse("tiny")) is None


def test_the_newest_of_several_stores_counts(tmp_path: Path) -> None:
    stores = Stores(tmp_path / "data", tmp_path / "ollama")
    add_model(tmp_path / "data" / "models", "tiny", {MODEL: b"older"})
    time.sleep(0.02)
    add_model(tmp_path / "ollama", "tiny", {MODEL: b"newer"})
    found = stores.find(Name.parse("tiny"))
    assert found is not None
    assert Path(found.weights).read_bytes() == b"newer"
    assert len(stores.list()) == 1
    assert stores.remove(Name.parse("tiny"))
    assert stores.list() == []


@pytest.mark.parametrize("damage", ["manifest", "weights"])
def test_a_damaged_store_hides_no_whole_model(tmp_path: Path, damage: str) -> None:
    stores, name = Stores(tmp_path / "data", tmp_path / "ollama"), Name.parse("tiny")
    add_model(tmp_path / "data" / "models", "tiny", {MODEL: b"whole"})
    time.sleep(0.02)
    add_model(tmp_path / "ollama", "tiny", {MODEL: b"newer"})
    if damage == "manifest":
        _manifest(tmp_path / "ollama").write_bytes(b"{")
    else:
        _blob(tmp_path / "ollama", b"newer").write_bytes(b"new")
    assert Path(stores.get(name).weights).read_bytes() == b"whole"
    assert stores.remove(name)
    assert stores.find(name) is None
    assert not _manifest(tmp_path / "ollama").exists()


@pytest.fixture
def read_only(tmp_path: Path) -> Iterator[Path]:
    """An Ollama store with a model named tiny on a disk that cannot be written, where this may be mounted."""
    folder = tmp_path / "ollama"
    add_model(folder, "tiny", {MODEL: b"GGUF..."})
    mounts = [["mount", "--bind", folder, folder], ["mount", "-o", "remount,bind,ro", folder]]
    if shutil.which("mount") is None or any(subprocess.run(mount, capture_output=True).returncode for mount in mounts):
        pytest.skip("mounting a read-only disk needs to be root")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


def test_a_model_on_a_read_only_disk(tmp_path: Path, read_only: Path) -> None:
    stores, name = Stores(tmp_path / "data", read_only), Name.parse("tiny")
    add_model(tmp_path / "data" / "models", "tiny", {MODEL: b"GGUF,,,"})
    with pytest.raises(NotWritable, match="cannot write to"):
        stores.remove(name)
    assert [model.weights for model in stores.list()] == [str(_blob(read_only, b"GGUF..."))]  # gone from the other
    with pytest.raises(NotWritable, match="cannot write to"):
        stores.copy(name, Name.parse("two"))
    create(Name.parse("mine"), Recipe(base=name, parameters={"num_ctx": 7}), stores, silent)
    mine = stores.get(Name.parse("mine"))
    assert mine.parameters == {"num_ctx": 7}
    assert Path(mine.weights).parent == tmp_path / "data" / "models" / "blobs"


@pytest.mark.skipif(not GGUF.exists(), reason="the GGUF file is not at hand")
def test_a_real_gguf_is_opened_in_place(store: OllamaStore) -> None:
    add_model(store.root, "all-minilm", {MODEL: GGUF.read_bytes(), PARAMS: b'{"num_ctx":256}'})
    model = store.find(Name.parse("all-minilm"))
    assert model is not None
    assert model.open().spec.embedding_length == 384
