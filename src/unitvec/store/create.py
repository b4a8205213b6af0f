"""New models from files or from other models, with parameters of their own."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath
from typing import Any

import orjson

from unitvec import human
from unitvec.errors import InvalidCheckpoint, InvalidRequest
from unitvec.models.config import parse_dtype
from unitvec.store import files, manifest
from unitvec.store.blobs import Blobs, is_gguf
from unitvec.store.folders import FolderStore
from unitvec.store.manifest import Layer, Manifest, is_digest
from unitvec.store.model import StoredModel
from unitvec.store.name import Name
from unitvec.store.ollama import OllamaStore
from unitvec.store.progress import Progress, Report
from unitvec.store.stores import Stores


@dataclass(frozen=True)
class Recipe:
    """What a new model is made of.

    Attributes:
        base: the model to start from, or None.
        blobs: the files to start from, by their relative paths: digests of blobs that are here.
        source: where a base that is not at hand is fetched from, one of ``sources.KEYS``; None for all.
        parameters: such as ``{"num_ctx": 512}``; those of the base stay where these say nothing.
        template: the prompt template, in the place of the base's.
        system: the system message, likewise.
        licenses: texts, added to those of the base.
    """

    base: Name | None = None
    blobs: Mapping[str, str] = field(default_factory=dict)
    parameters: Mapping[str, Any] = field(default_factory=dict)
    template: str = ""
    system: str = ""
    licenses: tuple[str, ...] = ()
    source: str | None = None

    def __post_init__(self) -> None:
        parse_dtype(self.parameters.get("dtype", "float32"))
        for path, digest in self.blobs.items():
            parts = PurePosixPath(path)
            if parts.is_absolute() or not path or ".." in parts.parts or "\\" in path or "\0" in path:
                raise InvalidRequest("file path must be relative")
            if not is_digest(digest):
                raise InvalidRequest("invalid digest format")
        if self.base is None and not self.blobs:
            raise InvalidRequest("neither 'from' or 'files' was specified")


def create(name: Name, recipe: Recipe, stores: Stores, report: Report) -> StoredModel:
    """Makes a model, in the place of the one of that name.

    Raises:
        InvalidRequest: the files are not here, or make no model that can be run.
        ModelNotFound, FetchFailed: the base is not at hand and cannot be had.
        NoSpace, NotWritable: the store cannot hold it.
    """
    holder: OllamaStore | FolderStore | None = None
    if recipe.base is not None:
        stores.fetch(recipe.base, report, recipe.source)
        holder = stores.holder(recipe.base)
    with stores.changing(name):
        if isinstance(holder, FolderStore):
            assert recipe.base is not None
            with files.writing(holder.root):
                report(Progress("writing manifest"))
                holder.copy(recipe.base, name, recipe.parameters)
        elif holder is None and any(path.endswith(".safetensors") for path in recipe.blobs):
            with files.writing(stores.folders.root):
                _from_folder(name, recipe, stores, report)
        else:
            target = stores.writable()
            with files.writing(target.root):
                _from_layers(name, recipe, stores, holder, target, report)
    report(Progress("success"))
    return stores.get(name)


def _from_folder(name: Name, recipe: Recipe, stores: Stores, report: Report) -> None:
    store = stores.folders
    with store.workspace() as work:
        folder = work / "model"
        for path, digest in recipe.blobs.items():
            source, target = _holder(digest, stores).path(digest), folder / path
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                os.link(source, target)
            except OSError:
                shutil.copyfile(source, target)
        report(Progress("writing manifest"))
        try:
            store.put(name, folder, recipe.parameters, source="create")
        except InvalidCheckpoint as error:
            raise InvalidRequest(error.message.replace(f"{folder}/", "").replace(str(folder), "the model")) from None
    for digest in recipe.blobs.values():
        stores.uploads.remove(digest)


def _from_layers(
    name: Name, recipe: Recipe, stores: Stores, source: OllamaStore | None, target: OllamaStore, report: Report
) -> None:
    if source is not None:
        assert recipe.base is not None
        old = source.manifest(recipe.base)
        assert old is not None
        config = orjson.loads(source.blobs.read(old.config)) if old.config else {}
        layers = [replace(layer, origin=recipe.base.short) for layer in old.layers]
        for layer in layers:
            target.blobs.adopt(layer, source.blobs)
        said = [f"using existing layer {layer.digest}" for layer in layers]
    else:
        layers, config = _gguf(recipe.blobs, stores, target, report)
        said = [f"using existing layer {layers[0].digest}"]

    def add(media_type: str, data: bytes, *, in_place: bool = True) -> None:
        if in_place:
            layers[:] = [layer for layer in layers if layer.media_type != media_type]
        known = target.blobs.has(manifest.digest_of(data))
        layer = target.blobs.add(data, media_type)
        layers.append(layer)
        said.append(f"{'using existing' if known else 'creating new'} layer {layer.digest}")

    if recipe.template:
        add(manifest.TEMPLATE, recipe.template.encode())
    if recipe.system:
        add(manifest.SYSTEM, recipe.system.encode())
    for text in recipe.licenses:
        add(manifest.LICENSE, text.encode(), in_place=False)
    if recipe.parameters:
        parameters: dict[str, Any] = {}
        for layer in layers:
            if layer.media_type == manifest.PARAMS:
                parameters |= orjson.loads(target.blobs.read(layer))
        parameters |= recipe.parameters
        add(manifest.PARAMS, orjson.dumps(parameters, option=orjson.OPT_SORT_KEYS | orjson.OPT_APPEND_NEWLINE))
    config_layer = target.blobs.add(orjson.dumps(config, option=orjson.OPT_APPEND_NEWLINE), manifest.CONFIG)
    for line in dict.fromkeys(said):
        report(Progress(line))
    report(Progress("writing manifest"))
    if missing := target.put(name, Manifest.build(config_layer, layers)):
        raise InvalidRequest(f'blob "{missing[0].digest}" not found')


_PART = re.compile(r"-\d{5}-of-\d{5}\.gguf$")  # as llama.cpp names them
_MERGE = "llama-gguf-split --merge makes one file of parts"


def _holder(digest: str, stores: Stores) -> Blobs:
    holder = stores.holder_of_blob(digest)
    if holder is None:
        raise InvalidRequest(f'blob "{digest}" not found')
    return holder


def _gguf(
    blobs: Mapping[str, str], stores: Stores, target: OllamaStore, report: Report
) -> tuple[list[Layer], dict[str, Any]]:
    """The layer of a GGUF file, which is in ``target`` afterwards, and the config that describes it."""
    report(Progress("parsing GGUF"))
    if len(blobs) > 1:
        raise InvalidRequest(f"only models of one GGUF file are supported; {_MERGE}")
    (origin, digest), *_ = blobs.items()
    if _PART.search(origin):
        raise InvalidRequest(f"{origin} is a part of a model; {_MERGE}")
    holder = _holder(digest, stores)
    path = holder.path(digest)
    if not is_gguf(path):
        named = origin.endswith(".gguf")
        raise InvalidRequest("supplied file was not in GGUF format" if named else "unknown type")
    from unitvec.checkpoint import gguf  # imported only where a file is read

    try:
        details = gguf.read(path).details
    except InvalidCheckpoint as error:
        raise InvalidRequest(error.message.replace(str(path), origin)) from None
    config = {
        "model_format": "gguf",
        "model_family": details.family,
        "model_families": [details.family],
        "model_type": human.number(details.parameter_count),
        "file_type": details.quantization_level,
        "architecture": "amd64",
        "os": "linux",
    }
    layer = Layer(manifest.MODEL, digest, path.stat().st_size, origin)
    if holder.root != target.blobs.root:
        target.blobs.adopt(layer, holder)
    return [layer], config
