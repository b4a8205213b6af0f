import os
import shutil
from pathlib import Path

import pytest
from tiny_model import write_model_folder

from unitvec.errors import InvalidCheckpoint
from unitvec.store.folders import FolderStore
from unitvec.store.name import Name

TINY = Name.parse("tiny")


@pytest.fixture
def store(tmp_path: Path) -> FolderStore:
    return FolderStore(tmp_path / "data")


def put(store: FolderStore, folder: Path, name: Name = TINY, **parameters: object) -> None:
    with store.workspace() as work:
        store.put(name, Path(shutil.copytree(folder, work / "model")), parameters, "test")


def weights(store: FolderStore) -> Path:
    model = store.find(TINY)
    assert model is not None
    return Path(model.weights) / "model.safetensors"


def snapshot(root: Path) -> set[str]:
    return {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file() and path.name != ".lock"}


def test_a_model_put_in_is_found_listed_and_read(store: FolderStore, model_folder: Path) -> None:
    assert store.find(TINY) is None
    assert store.list() == []
    put(store, model_folder, num_ctx=16)
    model = store.find(Name.parse("TINY:Latest"))
    assert model is not None
    assert (str(model.name.short), model.parameters) == ("tiny:latest", {"num_ctx": 16})
    assert len(model.digest) == 64
    assert model.size == sum(path.stat().st_size for path in model_folder.rglob("*") if path.is_file())
    assert model.open().spec.embedding_length == 8
    assert [listed.digest for listed in store.list()] == [model.digest]


def test_a_folder_that_is_no_model_leaves_the_store_as_it_was(store: FolderStore, model_folder: Path) -> None:
    put(store, model_folder)
    before = snapshot(store.root)
    (model_folder / "config.json").write_text('{"model_type": "resnet"}')
    with pytest.raises(InvalidCheckpoint, match="resnet"):
        put(store, model_folder)
    assert snapshot(store.root) == before


def test_changed_weights_are_refused(store: FolderStore, model_folder: Path) -> None:
    put(store, model_folder)
    path = weights(store)
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    model = store.find(TINY)
    assert model is not None
    with pytest.raises(InvalidCheckpoint, match=r"^damaged model tiny:latest: .*model\.safetensors has changed"):
        model.open()


def test_missing_weights_are_refused(store: FolderStore, model_folder: Path) -> None:
    put(store, model_folder)
    weights(store).unlink()
    model = store.find(TINY)
    assert model is not None
    with pytest.raises(InvalidCheckpoint, match=r"No such file.*remove it and fetch it again"):
        model.open()


def test_files_with_another_time_are_hashed_once(store: FolderStore, model_folder: Path) -> None:
    put(store, model_folder)
    path = weights(store)
    stamps = path.parent / "unitvec.json"
    before = stamps.read_bytes()
    os.utime(path, (1, 1))
    model = store.find(TINY)
    assert model is not None
    model.open()
    after = stamps.read_bytes()
    assert after != before
    model.open()
    assert stamps.read_bytes() == after


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"folder": 1}', '{"folder": "../..", "parameters": {}}'])
def test_a_damaged_description_is_told_and_not_listed(store: FolderStore, model_folder: Path, text: str) -> None:
    put(store, model_folder)
    (store.root / "names" / TINY.path).write_text(text)
    with pytest.raises(InvalidCheckpoint):
        store.find(TINY)
    assert store.list() == []
    put(store, model_folder)
    assert len(store.list()) == 1


def test_putting_a_model_in_again_heals_it(store: FolderStore, model_folder: Path) -> None:
    put(store, model_folder)
    weights(store).write_bytes(b"gone")
    put(store, model_folder)
    model = store.find(TINY)
    assert model is not None
    model.open()


def test_copies_share_a_folder_which_goes_with_the_last_name(store: FolderStore, model_folder: Path) -> None:
    copy, other = Name.parse("bob/copy:v2"), Name.parse("other")
    put(store, model_folder)
    put(store, write_model_folder(model_folder.parent / "second", seed=1), other)
    assert store.copy(TINY, copy)
    assert not store.copy(Name.parse("nope"), copy)
    assert len(list((store.root / "folders").iterdir())) == 2
    assert store.remove(TINY)
    assert not store.remove(TINY)
    model = store.find(copy)
    assert model is not None
    model.open()
    assert store.remove(copy)
    assert len(list((store.root / "folders").iterdir())) == 1
    assert [model.name for model in store.list()] == [other]
    assert store.remove(other)
    assert snapshot(store.root) == set()


def test_a_model_being_used_outlives_its_removal(store: FolderStore, model_folder: Path) -> None:
    put(store, model_folder)
    model = store.find(TINY)
    assert model is not None
    checkpoint = model.open()
    before = {name: tensor.copy() for name, tensor in checkpoint.tensors.items()}
    store.remove(TINY)
    assert all((tensor == before[name]).all() for name, tensor in checkpoint.tensors.items())
