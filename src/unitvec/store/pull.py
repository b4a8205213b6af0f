"""Brings a model from a registry into Ollama's store."""

from __future__ import annotations

import time

from unitvec.errors import FetchFailed, InvalidCheckpoint, ModelNotFound
from unitvec.store import files
from unitvec.store.download import download
from unitvec.store.manifest import Manifest
from unitvec.store.model import StoredModel
from unitvec.store.name import Name
from unitvec.store.ollama import OllamaStore
from unitvec.store.progress import Progress, Report
from unitvec.store.registry import Registry, Transient, Unreachable

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
        for _ in range(_TRIES):
            missing = sum(layer.size - store.blobs.arrived(layer) for layer in new.blobs if store.blobs.lacks(layer))
            files.require_space(store.blobs.root, missing)
            for layer in new.blobs:
                download(registry, layer, store.blobs, report)
            report(Progress("verifying sha256 digest"))  # as Ollama tells it; here that was done on arrival
            report(Progress("writing manifest"))
            if not store.put(name, new):  # else blobs were removed while others came
                break
        else:
            raise FetchFailed(f"the blobs of {name.short} are removed as fast as they come")
    found = store.find(name)
    if found is None:
        raise FetchFailed(f"{name.short} was removed as soon as it had come")
    report(Progress("success"))
    return found


def _manifest(registry: Registry) -> Manifest:
    failures = 0
    while True:
        try:
            return Manifest.parse(registry.manifest())
        except ModelNotFound as error:
            raise ModelNotFound(f"pull model manifest: {error.message}") from None
        except Transient as error:
            failures += 1
            if isinstance(error, Unreachable) or failures >= _TRIES:
                raise FetchFailed(f"pull model manifest: {error.message}") from None
            time.sleep(min(error.retry_after or failures, 10.0))
        except (FetchFailed, InvalidCheckpoint) as error:
            raise FetchFailed(f"pull model manifest: {error.message}") from None
