"""Sends a model from Ollama's store to a registry."""

from __future__ import annotations

from collections.abc import Iterator

from unitvec.errors import InvalidRequest, ModelNotFound
from unitvec.store.blobs import chunks_of
from unitvec.store.folders import FolderStore
from unitvec.store.manifest import Layer
from unitvec.store.name import Name
from unitvec.store.ollama import OllamaStore
from unitvec.store.progress import Progress, Report
from unitvec.store.registry import Registry, patiently
from unitvec.store.stores import Stores


def push(name: Name, stores: Stores, report: Report, *, insecure: bool = False) -> None:
    """Sends a model to the registry of its name; blobs that are there already are not sent.

    Raises:
        ModelNotFound: it is not at hand.
        InvalidRequest: it is of a kind that registries do not keep.
        InvalidCheckpoint: it is damaged.
        FetchFailed: the registry cannot be reached, or does not take it.
    """
    report(Progress("retrieving manifest"))
    store = stores.holder(name)
    if isinstance(store, FolderStore):
        raise InvalidRequest(f"{name.short} is a folder of safetensors; registries keep GGUF files")
    found = store.manifest(name) if store else None
    if store is None or found is None:
        raise ModelNotFound(f"model '{name.short}' not found")
    with Registry(name, insecure=insecure) as registry, store.claiming(found):
        for layer in found.blobs:
            _upload(registry, layer, store, report)
        report(Progress("pushing manifest"))
        patiently(lambda: registry.put_manifest(found.data))
    report(Progress("success"))


def _upload(registry: Registry, layer: Layer, store: OllamaStore, report: Report) -> None:
    def tell(completed: int) -> None:
        report(Progress(f"pushing {layer.digest[7:19]}", layer.digest, layer.size, completed))

    def chunks() -> Iterator[bytes]:
        sent = 0
        for chunk in chunks_of(store.blobs.path(layer.digest)):
            yield chunk
            sent += len(chunk)
            tell(sent)

    def send() -> None:
        if not registry.has(layer.digest):
            store.blobs.verify(layer)
            registry.upload(layer.digest, layer.size, chunks)

    patiently(send)
    tell(layer.size)
