"""All the places a model can be in or come from, in their order."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from unitvec.errors import InvalidCheckpoint, ModelNotFound, NotWritable
from unitvec.store import files, sources
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
        on_change: told of each name that now stands for another model or for none, in whatever thread that happened.
    """

    def __init__(self, data: Path, ollama: Path | None = None) -> None:
        self.folders = FolderStore(data)
        self.layouts = [OllamaStore(root) for root in dict.fromkeys([ollama or data / "models", data / "models"])]
        self.on_change: Callable[[Name], None] = lambda _: None
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
        return (None if source else self.find(name)) or self.pull(name, report, source)

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

        def work(tell: Report) -> StoredModel:
            candidates = sources.sources(name, self.writable, self.folders, insecure)
            try:
                before = self.find(name)
            except InvalidCheckpoint:
                before = None
            model = sources.fetch(name, [c for c in candidates if source in (None, c.key)], tell)
            if before is None or before.digest != model.digest:
                self.on_change(name)
            return model

        return self._pulls.run((name, source, insecure), work, report)

    def copy(self, source: Name, target: Name) -> bool:
        """Gives a model another name as well; False where there is no such model.

        Raises:
            NotWritable: its store cannot be changed.
        """
        holder = self.holder(source)
        if holder is None:
            return False
        with files.writing(holder.root):
            copied = holder.copy(source, target)
        if copied:
            self.on_change(target)
        return copied

    def remove(self, name: Name) -> bool:
        """Takes a model away, and what only it needed; False where there is no such model.

        Raises:
            NotWritable: its store cannot be changed.
        """
        removed = False
        for store in self._all():
            with files.writing(store.root):
                removed |= store.remove(name)
        if removed:
            self.on_change(name)
        return removed

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
        """The store whose model of a name counts.

        Raises:
            InvalidCheckpoint: there is one, and it is damaged.
        """
        found = [(model.modified_at, store) for store in self._all() if (model := store.find(name))]
        return max(found, key=lambda pair: pair[0])[1] if found else None

    def writable(self) -> OllamaStore:
        """Where new models in Ollama's layout go.

        Raises:
            NotWritable: nowhere.
        """
        for store in self.layouts:
            if store.is_writable:
                return store
        raise NotWritable(f"cannot write to {' or '.join(str(store.root) for store in self.layouts)}")

    def _all(self) -> tuple[OllamaStore | FolderStore, ...]:
        return (*self.layouts, self.folders)
