"""Brings a model from a registry into Ollama's store."""

from __future__ import annotations

from unitvec.errors import FetchFailed, InvalidCheckpoint, ModelNotFound
from unitvec.store import files, partial
from unitvec.store.download import download
from unitvec.store.manifest import Manifest
from unitvec.store.model import StoredModel
from unitvec.store.name import Name
from unitvec.store.ollama import OllamaStore
from unitvec.store.progress import Progress, Report
from unitvec.store.registry import Registry, patiently

_TRIES = 3


def pull(
    name: Name, store: OllamaStore, report: Report, *, insecure: bool = False, patience: float = 30.0
) -> StoredModel:
    """Brings a model, or what has changed of it.

    Args:
        name: its host is asked.
        store: where it goes; what it replaces, and nobody else needs, is removed.
        report: told each step in Ollama's words; where it raises, the pull stops, to be gone on with by the next one.
        insecure: see ``Registry``.
        patience: likewise.

    Raises:
        ModelNotFound: the registry has no such model.
        FetchFailed: the registry cannot be reached, or sends other bytes than it should.
        NoSpace: the disk cannot hold it.
    """
    report(Progress("pulling manifest"))
    with Registry(name, insecure=insecure, patience=patience) as registry, files.writing(store.root):
        new = _manifest(registry)
        files.sweep(store.blobs.root)
        partial.sweep(store.blobs.root)
        with store.claiming(new):
            _bring(new, name, registry, store, report)
    found = store.find(name)
    if found is None:
        raise FetchFailed(f"{name.short} was removed as soon as it had come")
    report(Progress("success"))
    return found


def _bring(new: Manifest, name: Name, registry: Registry, store: OllamaStore, report: Report) -> None:
    for _ in range(_TRIES):
        missing = [layer for layer in new.blobs if not store.blobs.is_whole(layer.digest)]
        files.require_space(store.blobs.root, sum(layer.size - store.blobs.arrived(layer) for layer in missing))
        for layer in new.blobs:
            if layer in missing:
                download(registry, layer, store.blobs, report)
            else:
                report(Progress(f"pulling {layer.digest[7:19]}", layer.digest, layer.size, layer.size))
        report(Progress("verifying sha256 digest"))  # as Ollama tells it; here that was done on arrival
        report(Progress("writing manifest"))
        if not store.put(name, new):
            return
    # Another program does that: what claims a blob is known to this one.
    raise FetchFailed(f"the blobs of {name.short} are removed as fast as they come")


def _manifest(registry: Registry) -> Manifest:
    try:
        return Manifest.parse(patiently(registry.manifest))
    except ModelNotFound as error:
        raise ModelNotFound(f"pull model manifest: {error.message}") from None
    except (FetchFailed, InvalidCheckpoint) as error:
        raise FetchFailed(f"pull model manifest: {error.message}") from None
