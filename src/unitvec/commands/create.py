"""``unitvec create``."""

from __future__ import annotations

import hashlib
from pathlib import Path

import click

from unitvec import config
from unitvec.commands import client
from unitvec.commands.progress import reporter
from unitvec.commands.source import source_option
from unitvec.errors import UnitvecError
from unitvec.store import files
from unitvec.store.blobs import GGUF, chunks_of, is_gguf
from unitvec.store.create import Recipe, create
from unitvec.store.modelfile import Modelfile
from unitvec.store.name import Name
from unitvec.store.progress import Progress

# Of a folder that sentence-transformers has saved, what a model is made of.
_FOLDER_FILES = (".json", ".safetensors")


@click.command()
@click.argument("model")
@click.option("-f", "--file", "modelfile", type=click.Path(path_type=Path), help="A Modelfile.  [default: Modelfile]")
@click.option("--from", "base", help="Instead of a Modelfile: a GGUF file, a folder of safetensors, or a model.")
@source_option
def command(model: str, modelfile: Path | None, base: str | None, source: str | None) -> None:
    """Make MODEL from a GGUF file, a folder as sentence-transformers saves it, or another model."""
    name = Name.parse(model)
    made = Modelfile(base=base) if base else _read(modelfile or Path("Modelfile"))
    origin = (Path() if base else (modelfile or Path("Modelfile")).parent) / Path(made.base).expanduser()
    paths = _files(origin)
    if not paths and (made.base.startswith((".", "/", "~")) or made.base.endswith(".gguf")):
        raise UnitvecError(f"no file or folder {origin}")
    server = client.running()
    stores = config.stores()
    with reporter() as report:
        digests = {}
        for relative, path in paths.items():
            report(Progress("gathering model components"))
            with path.open("rb") as file:
                digest = f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"
            digests[relative] = digest
            if server:
                server.upload(digest, chunks_of(path))
            else:
                if not stores.holder_of_blob(digest):
                    blobs = stores.blobs_for(GGUF if is_gguf(path) else b"")
                    with files.writing(blobs.root):
                        blobs.receive(digest, chunks_of(path))
        if server:
            origins = {"files": digests} if paths else {"from": made.base, "source": source}
            rest = {"parameters": made.parameters, "template": made.template, "system": made.system}
            server.stream("/api/create", {"model": model, **origins, **rest, "license": made.licenses}, report)
        else:
            recipe = Recipe(
                base=None if paths else Name.parse(made.base),
                blobs=digests,
                parameters=made.parameters,
                template=made.template,
                system=made.system,
                licenses=tuple(made.licenses),
                source=source,
            )
            create(name, recipe, stores, report)


def _read(path: Path) -> Modelfile:
    try:
        return Modelfile.parse(path.read_text())
    except (OSError, UnicodeDecodeError) as error:
        raise UnitvecError(f"cannot read {path}: {error}") from None


def _files(origin: Path) -> dict[str, Path]:
    """The files of a model by their relative paths; none where ``origin`` is no path but a model's name."""
    if origin.is_file():
        return {origin.name: origin}
    if origin.is_dir():
        found = sorted(path for path in origin.rglob("*") if path.suffix in _FOLDER_FILES and path.is_file())
        if not any(path.suffix == ".safetensors" for path in found):
            found = sorted(origin.glob("*.gguf"))
        if not found:
            raise UnitvecError(f"neither safetensors nor GGUF files in {origin}")
        return {path.relative_to(origin).as_posix(): path for path in found}
    return {}
