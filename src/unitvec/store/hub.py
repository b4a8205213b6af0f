"""Models of safetensors from the Hugging Face hub, by its own library: its cache, tokens and mirrors hold."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from pathlib import Path
from typing import Any

from unitvec.errors import FetchFailed, ModelNotFound
from unitvec.store import files
from unitvec.store.folders import FolderStore
from unitvec.store.model import StoredModel
from unitvec.store.name import DEFAULT_TAG, Name
from unitvec.store.progress import Progress, Report

LABEL = "the Hugging Face hub"

_HOSTS = ("hf.co", "huggingface.co")
# Those that a sentence-transformers model is made of; not the same weights in other formats.
_PATTERNS = ["*.json", "*.safetensors"]
_SHA256 = re.compile(r"[0-9a-f]{64}")


def offers(name: Name) -> bool:
    """Whether the name is one of the hub's: ``hf.co/USER/REPOSITORY[:REVISION]``."""
    return name.host.lower() in _HOSTS


def fetch(name: Name, store: FolderStore, report: Report) -> StoredModel:
    """Brings a model into ``store``.

    Raises:
        ModelNotFound: there is no such repository.
        FetchFailed: it cannot be reached, wants a login, or has no safetensors.
        InvalidCheckpoint: it is of a kind that cannot be run.
    """
    report(Progress("pulling manifest"))
    snapshot = _download(name, report)
    if not list(snapshot.rglob("*.safetensors")):
        raise FetchFailed(f"{name.repository} has neither GGUF nor safetensors files")
    with files.writing(store.root), store.workspace() as work:
        report(Progress("verifying sha256 digest"))
        model = work / "model"
        for source in snapshot.rglob("*"):
            if source.is_file():
                _take(source.resolve(), model / source.relative_to(snapshot))
        report(Progress("writing manifest"))
        stored = store.put(name, model, {}, source=f"{name.repository}@{snapshot.name}")
    report(Progress("success"))
    return stored


def _download(name: Name, report: Report) -> Path:
    from huggingface_hub import errors, snapshot_download

    revision = None if name.tag == DEFAULT_TAG else name.tag
    try:
        return Path(
            snapshot_download(
                name.repository, revision=revision, allow_patterns=_PATTERNS, tqdm_class=_meter(name, report)
            )
        )
    except errors.GatedRepoError:
        raise FetchFailed(f"{name.repository} wants you to log in and accept its terms: hf auth login") from None
    except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError):
        raise ModelNotFound(f"{name.repository} is not there, or wants you to log in: hf auth login") from None
    except (OSError, ValueError, errors.HfHubHTTPError) as error:
        raise FetchFailed(f"no connection, or no answer: {str(error).splitlines()[0][:200]}") from None


def _meter(name: Name, report: Report) -> Any:
    """A progress bar for the library that draws nothing, and reports; where that raises, the download stops."""
    from tqdm.auto import tqdm

    class Meter(tqdm):  # type: ignore[misc]
        def __init__(self, *args: Any, **options: Any) -> None:
            options.pop("name", None)
            super().__init__(*args, **options | {"disable": True})
            self._counts = options.get("unit") == "B"
            self.n = 0

        def update(self, n: float | None = 1) -> None:
            self.n += int(n or 0)
            if self._counts and self.total:
                report(Progress(f"pulling {name.model}", str(name), int(self.total), min(self.n, int(self.total))))

    return Meter


def _take(source: Path, target: Path) -> None:
    """Links a file of the library's cache, or copies it; large files are named by their SHA-256 there."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if _SHA256.fullmatch(source.name):
        with source.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if found != source.name:
            raise FetchFailed(f"{source} is damaged: its SHA-256 is {found}; delete it and try again")
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
