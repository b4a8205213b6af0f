"""Files named by their SHA-256, ``blobs/sha256-HEX``. What has a name has been verified."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType

from unitvec.errors import InvalidCheckpoint, InvalidRequest
from unitvec.store import files
from unitvec.store.manifest import Layer, digest_of, is_digest

GGUF = b"GGUF"  # how files begin that Ollama can run


class Blobs:
    """The blobs under ``root``, which need not be there yet."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def path(self, digest: str) -> Path:
        """Where a blob lies or would lie.

        Raises:
            InvalidRequest: ``digest`` is not ``sha256:HEX``.
        """
        if not is_digest(digest):
            raise InvalidRequest("invalid digest format")
        return self.root / digest.replace(":", "-")

    def partial(self, digest: str) -> Path:
        """Where a blob grows while it is pulled; Ollama's name for it."""
        path = self.path(digest)
        return path.with_name(f"{path.name}-partial")

    def has(self, digest: str) -> bool:
        """Whether a blob is here."""
        return self.path(digest).is_file()

    def lacks(self, layer: Layer) -> bool:
        """Whether a blob is missing, or cut off: what can be told without reading it."""
        try:
            return self.path(layer.digest).stat().st_size != layer.size
        except OSError:
            return True

    def is_whole(self, digest: str) -> bool:
        """Whether a blob is here with the bytes of its name; reads all of it."""
        try:
            return self._digest(digest) == digest
        except OSError:
            return False

    def arrived(self, layer: Layer) -> int:
        """Bytes on the disk of a blob that is being pulled, or was."""
        try:
            status = self.partial(layer.digest).stat()
        except OSError:
            return 0
        return min(layer.size, getattr(status, "st_blocks", 0) * 512)  # the file has holes where nothing is yet

    def read(self, layer: Layer) -> bytes:
        """A small blob's bytes, verified.

        Raises:
            InvalidCheckpoint: it is missing or damaged.
        """
        try:
            data = self.path(layer.digest).read_bytes()
        except OSError as error:
            raise InvalidCheckpoint(f"cannot read blob {layer.digest}: {error.strerror}") from None
        if digest_of(data) != layer.digest:
            raise InvalidCheckpoint(f"damaged blob {layer.digest}: its digest is {digest_of(data)}")
        return data

    def add(self, data: bytes, media_type: str) -> Layer:
        """Keeps some bytes as a blob."""
        layer = Layer(media_type, digest_of(data), len(data))
        if not self.is_whole(layer.digest):
            files.write(self.path(layer.digest), data)
        return layer

    def receive(self, digest: str, chunks: Iterable[bytes]) -> None:
        """Keeps a stream as a blob.

        Raises:
            InvalidRequest: its digest is another one; nothing is kept.
        """
        with Incoming(self, digest) as incoming:
            for chunk in chunks:
                incoming.write(chunk)
            incoming.keep()

    def adopt(self, layer: Layer, other: Blobs) -> None:
        """Takes a blob over from another store, by a link where the disk is the same.

        Raises:
            InvalidCheckpoint: it is missing there, or damaged.
        """
        if self.is_whole(layer.digest):
            return
        other.verify(layer)
        self.root.mkdir(parents=True, exist_ok=True)
        try:
            os.link(other.path(layer.digest), self.path(layer.digest))
        except OSError:  # another disk, another owner, or a damaged one in its place
            self.receive(layer.digest, chunks_of(other.path(layer.digest)))

    def verify(self, layer: Layer) -> None:
        """Reads a blob and compares its digest with its name.

        Raises:
            InvalidCheckpoint: it is missing or damaged.
        """
        try:
            found = self._digest(layer.digest)
        except OSError as error:
            raise InvalidCheckpoint(f"cannot read blob {layer.digest}: {error.strerror}") from None
        if found != layer.digest:
            raise InvalidCheckpoint(f"digest mismatch, file must be downloaded again: want {layer.digest}, got {found}")

    def remove(self, digest: str) -> None:
        """Takes a blob away; one that cannot be removed, being open on Windows, stays until the next time."""
        try:
            self.path(digest).unlink(missing_ok=True)
        except PermissionError:
            if os.name != "nt":
                raise

    def _digest(self, digest: str) -> str:
        """What a blob's digest really is."""
        with self.path(digest).open("rb") as file:
            return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"


class Incoming:
    """A blob that is being written; it has no name until it is kept.

    Args:
        blobs: where to.
        digest: what it must turn out to be.
    """

    def __init__(self, blobs: Blobs, digest: str) -> None:
        self._digest = digest
        self._target = blobs.path(digest)
        blobs.root.mkdir(parents=True, exist_ok=True)
        self._hasher = hashlib.sha256()
        descriptor, name = tempfile.mkstemp(dir=blobs.root, prefix=files.TEMPORARY)
        self._temporary = Path(name)
        self._file = os.fdopen(descriptor, "wb")

    def write(self, chunk: bytes) -> None:
        """Adds some bytes."""
        self._hasher.update(chunk)
        self._file.write(chunk)

    def keep(self) -> None:
        """Gives the blob its name.

        Raises:
            InvalidRequest: its digest is another one.
        """
        if (found := f"sha256:{self._hasher.hexdigest()}") != self._digest:
            raise InvalidRequest(f'digest mismatch, expected "{self._digest}", got "{found}"')
        self._file.flush()
        os.fsync(self._file.fileno())
        self._temporary.chmod(0o644)
        os.replace(self._temporary, self._target)
        files.sync_folder(self._target.parent)

    def __enter__(self) -> Incoming:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._file.close()
        self._temporary.unlink(missing_ok=True)


def is_gguf(path: Path) -> bool:
    """Whether a file is one that Ollama can run, by how it begins."""
    with path.open("rb") as file:
        return file.read(len(GGUF)) == GGUF


def chunks_of(path: Path, size: int = 1 << 20) -> Iterator[bytes]:
    """A file's bytes, piece by piece."""
    with path.open("rb") as file:
        while chunk := file.read(size):
            yield chunk
