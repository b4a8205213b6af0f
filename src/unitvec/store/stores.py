"""All the places a model can be in or come from, in their order."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from unitvec.errors import InvalidCheckpoint, ModelNotFound, NotWritable, UnitvecError
from unitvec.store import files, sources
from unitvec.store.blobs import GGUF, Blobs
from unitvec.store.folders import FolderStore
from unitvec.store.model import StoredModel
from unitvec.store.name import Name
from unitvec.store.ollama import OllamaStore
from unitvec.store.progress import Report, silent
from unitvec.store.shared import Shared


class Stores:
    """The models at hand, and the sources of others. For any number of threads.

    Args:
        data: unitvec's own folder; made when it is needed.
        ollama: Ollama's store, read and written in place. Without one, or where it cannot be written, models in
            Ollama's layout go to ``data/models``.

    Attributes:
        uploads: files that came by themselves and are no GGUF: models are made of them in unitvec's own store.
        on_change: told of each name that now stands for another model (the second argument) or for none (None), in
            whatever thread that happened.
    """

    def __init__(self, data: Path, ollama: Path | None = None) -> None:
        self.folders = FolderStore(data)
        self.layouts = [OllamaStore(root) for root in dict.fromkeys([ollama or data / "models", data / "models"])]
        self.uploads = Blobs(data / "uploads")
        self.on_change: Callable[[Name, StoredModel | None], None] = lambda _name, _model: None
        self._pulls: Shared[StoredModel] = Shared()

    def find(self, name: Name) -> StoredModel | None:
        """The model of a name, if it is at hand; the newest where several stores have one.

        Raises:
            InvalidCheckpoint: it is there and damaged.
        """
        holder = self.holder(name)
        return holder.find(name) if holder else None

    def get(self, name: Name) -> StoredModel:
        """As ``find``, for a model that must be there.

        Raises:
            ModelNotFound: it is not.
            InvalidCheckpoint: it is damaged.
        """
        found = self.find(name)
        if found is None:
            raise ModelNotFound(f"model '{name.short}' not found")
        return found

    def list(self) -> list[StoredModel]:
        """All models at hand, the newest first."""
        newest: dict[Name, StoredModel] = {}
        for model in sorted((model for store in self._all() for model in store.list()), key=lambda m: m.modified_at):
            newest[model.name] = model
        return sorted(newest.values(), key=lambda model: model.modified_at, reverse=True)

    def fetch(self, name: Name, report: Report = silent, source: str | None = None) -> StoredModel:
        """The model of a name, pulled if it is not at hand.

        Raises:
            As ``find`` and ``pull``.
        """
        return self.find(name) or self.pull(name, report, source)

    def pull(
        self, name: Name, report: Report = silent, source: str | None = None, *, insecure: bool = False
    ) -> StoredModel:
        """Brings a model, or what is new of it, from the first source that has it; two pulls at once share the work.

        Args:
            name: which.
            report: told each step; where it raises, this caller leaves, and the pull stops if he was the last.
            source: ask only this one of ``sources.KEYS``.
            insecure: allow plain HTTP, and certificates that nobody vouches for.

        Raises:
            ModelNotFound: nobody has it.
            FetchFailed: the message says who was asked and what each answered.
            NoSpace, NotWritable: the disk cannot hold it.
        """

        known = sources.sources(name, self.writable, self.folders, insecure)
        candidates = [candidate for candidate in known if source in (None, candidate.key)]

        def work(tell: Report) -> StoredModel:
            with self.changing(name):
                return sources.fetch(name, candidates, tell)

        # What is asked in the same way is one pull. How a registry is reached is a part of that.
        asked = [(c.key, c.key == "registry" and (insecure, insecure and name.scheme)) for c in candidates]
        return self._pulls.run((name, *asked), work, report)

    def copy(self, source: Name, target: Name) -> bool:
        """Gives a model another name as well; False where there is no such model.

        Raises:
            NotWritable: its store cannot be changed.
        """
        holder = self.holder(source)
        if holder is None:
            return False
        with self.changing(target), files.writing(holder.root):
            return holder.copy(source, target)

    def remove(self, name: Name) -> bool:
        """Takes a model away from all stores, and what only it needed; False where there is no such model.

        Raises:
            NotWritable: a store cannot be changed, and has it still; it is gone from the others.
        """
        removed, failed = False, None
        with self.changing(name):
            for store in self._all():
                try:
                    with files.writing(store.root):
                        removed |= store.remove(name)
                except UnitvecError as error:
                    failed = failed or error
        if failed:
            raise failed
        return removed

    @contextlib.contextmanager
    def changing(self, name: Name) -> Iterator[None]:
        """Around what may change what a name stands for: tells ``on_change`` if it did, even where it failed."""
        before = _identity(self._runnable(name))
        try:
            yield
        finally:
            now = self._runnable(name)
            if _identity(now) != before:
                self.on_change(name, now)

    def verify(self, name: Name, verified: Callable[[str, int], None] = lambda _digest, _size: None) -> StoredModel:
        """Reads all files of a model; ``verified`` is told of the digest and size of each that is whole.

        Raises:
            ModelNotFound: there is no such model.
            InvalidCheckpoint: a file is missing or damaged.
        """
        holder, model = self.holder(name), self.get(name)
        assert holder is not None
        holder.verify(name, verified)
        return model

    def holder(self, name: Name) -> OllamaStore | FolderStore | None:
        """The store whose model of a name counts: the newest one that is whole, as far as can be told at once.

        Raises:
            InvalidCheckpoint: there are only damaged ones.
        """
        found, damage = [], None
        for store in self._all():
            try:
                model = store.find(name)
            except InvalidCheckpoint as error:
                damage = damage or error
            else:
                found += [(model, store)] if model else []
        if not found and damage:
            raise damage
        if len(found) > 1:
            found = [pair for pair in found if pair[1].is_complete(name)] or found
        return max(found, key=lambda pair: pair[0].modified_at)[1] if found else None

    def writable(self) -> OllamaStore:
        """Where new models in Ollama's layout go.

        Raises:
            NotWritable: nowhere.
        """
        for store in self.layouts:
            if store.is_writable:
                return store
        raise NotWritable(f"cannot write to {' or '.join(str(store.root) for store in self.layouts)}")

    def _runnable(self, name: Name) -> StoredModel | None:
        with contextlib.suppress(InvalidCheckpoint):
            return self.find(name)
        return None

    def blobs_for(self, beginning: bytes) -> Blobs:
        """Where a file goes that begins like this, for a model to be made of it.

        Raises:
            NotWritable: there is no store for it.
        """
        files.sweep(self.uploads.root, "*")  # what no model was made of
        return self.writable().blobs if beginning.startswith(GGUF) else self.uploads

    def holder_of_blob(self, digest: str) -> Blobs | None:
        """Where a blob is whole, if anywhere; reads all of it."""
        places = [*(store.blobs for store in self.layouts), self.uploads]
        return next((blobs for blobs in places if blobs.is_whole(digest)), None)

    def _all(self) -> tuple[OllamaStore | FolderStore, ...]:
        return (*self.layouts, self.folders)


def _identity(model: StoredModel | None) -> tuple[object, ...]:
    """What tells a model from another, and from itself before damaged files of it were replaced."""
    if model is None:
        return ()
    try:
        status = os.stat(model.weights)
    except OSError:
        return (model.digest,)
    return model.digest, status.st_dev, status.st_ino
