"""An environment of its own for each client: installed at its first use, kept between runs."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

SCRIPTS = Path(__file__).parent / "scripts"


@dataclass(frozen=True)
class Client:
    """A client: what is installed, and the script that uses it.

    Attributes:
        package: its name where it comes from.
        version: the one that is verified.
        script: takes the server's URL and a JSON list of texts; prints ``one``, ``many`` and ``error`` as JSON.
        error: what its error must say.
        needs: what its documentation says to install beside it.
    """

    package: str
    version: str
    script: str
    error: str = "not found"
    needs: tuple[str, ...] = ()

    def __str__(self) -> str:
        return self.script

    def run(self, url: str, texts: str) -> subprocess.CompletedProcess[str]:
        """Run the script in the client's environment."""
        if self.script.endswith(".sh"):
            command = ["sh"]
        elif self.script.endswith(".mjs"):
            command = ["node"]
        else:
            command = [str(python(f"{self.package}=={self.version}", *self.needs))]
        script = SCRIPTS / self.script
        if self.script.endswith(".mjs"):  # node looks for packages beside the script
            folder = _npm(f"{self.package}@{self.version}")
            script = Path(shutil.copy(script, folder / self.script))
        environment = {key: value for key, value in os.environ.items() if not key.lower().endswith("_proxy")}
        return subprocess.run(
            [*command, str(script), url, texts],
            capture_output=True,
            text=True,
            timeout=180,
            check=False,
            env=environment | {"ANONYMIZED_TELEMETRY": "False", "LITELLM_LOCAL_MODEL_COST_MAP": "True"},
        )


def _folder(wanted: str) -> Path:
    base = Path(os.environ.get("UNITVEC_TEST_CLIENTS") or Path(tempfile.gettempdir()) / "unitvec-test-clients")
    key = hashlib.sha256(f"{wanted} {sys.version}".encode()).hexdigest()[:8]
    return base / f"{wanted.replace('/', '_')}-{key}"


def python(*wanted: str) -> Path:
    """The interpreter of an environment that has these packages."""
    folder = _folder("+".join(wanted))
    interpreter = folder / "bin" / "python"
    if not (folder / "complete").exists():
        shutil.rmtree(folder, ignore_errors=True)
        if uv := shutil.which("uv"):
            _quietly(uv, "venv", "-q", "--python", sys.executable, str(folder))
            _quietly(uv, "pip", "install", "-q", "--python", str(interpreter), *wanted)
        else:
            _quietly(sys.executable, "-m", "venv", str(folder))
            _quietly(str(interpreter), "-m", "pip", "install", "-q", *wanted)
        (folder / "complete").touch()
    return interpreter


def _npm(wanted: str) -> Path:
    folder = _folder(f"npm-{wanted}")
    if not (folder / "complete").exists():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        _quietly("npm", "install", "--silent", "--no-audit", "--no-fund", "--prefix", str(folder), wanted)
        (folder / "complete").touch()
    return folder


def _quietly(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=900, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr[-2000:]}")
