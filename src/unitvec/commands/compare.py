"""``unitvec compare``: what changes for whoever moves here from another server."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import click
import httpx2
import numpy as np
import numpy.typing as npt
import orjson

from unitvec.commands.setting import setting
from unitvec.errors import UnitvecError

if TYPE_CHECKING:
    from unitvec.engine.onnx import FloatArray

# Texts as people search for and index them, in many scripts; the last ones are what tokenizers differ on.
TEXTS = (
    "Why is the sky blue?",
    "how do i reset my password",
    "The mitochondria is the powerhouse of the cell.",
    "Der Zug nach Köln hat fünfzehn Minuten Verspätung.",
    "L'œuvre est exposée au musée d'Orsay jusqu'à dimanche.",
    "¿Dónde está la biblioteca más cercana?",
    "A conferência foi adiada para a próxima semana.",
    "Pociąg odjeżdża z peronu trzeciego o ósmej.",
    "İstanbul'da bugün hava yağmurlu.",
    "Χθες το βράδυ έβρεχε στην Αθήνα.",
    "Почему небо голубое?",
    "שלום, מה שלומך היום?",
    "كيف حالك اليوم؟",
    "आज मौसम बहुत अच्छा है।",
    "আমি বাংলায় গান গাই।",
    "வானம் ஏன் நீலமாக உள்ளது?",
    "วันนี้อากาศดีมาก",
    "今天天气很好,我们去公园吧。",
    "東京タワーは赤と白で塗られている。",
    "하늘은 왜 파란가요?",
    "Tại sao bầu trời màu xanh?",
    "def add(a: int, b: int) -> int:\n    return a + b",
    "SELECT name FROM users WHERE id = 42 ORDER BY created_at DESC;",
    "https://example.org/a/path?with=query&and=more#fragment",
    "👩‍🚀 🚀 to the 🌕!",
    "ﬁne ﬂour, ½ cup, №5, ＦＵＬＬ ｗｉｄｔｈ",  # noqa: RUF001
    "   leading and   inner   spaces\t\ttabs\n\nlines   ",
    "supercalifragilisticexpialidocious " * 3,
    "a" * 120,
    "The quick brown fox jumps over the lazy dog. " * 40,
)

_ALIKE = 0.999


@dataclass(frozen=True)
class Measured:
    """One server's side.

    Attributes:
        tokens: of all texts together, as it counts them; None where it does not say.
        texts_per_second: one request after the other, ``batch`` texts in each.
        p50_ms, p99_ms: one text a request, one after the other.
    """

    tokens: int | None
    texts_per_second: float
    p50_ms: float
    p99_ms: float


@dataclass(frozen=True)
class Comparison:
    """What ``--json`` prints.

    Attributes:
        cosine_least, cosine_mean: over the texts' pairs of vectors.
        different: texts whose vectors' cosine is under 0.999, the furthest first.
    """

    model: str
    texts: int
    dimensions: int
    cosine_least: float
    cosine_mean: float
    under_0_999: int
    there: Measured
    here: Measured
    different: list[tuple[float, str]] = field(default_factory=list)


class Endpoint:
    """A server that embeds, by Ollama's API or by OpenAI's.

    Args:
        url: its address; one that ends in /v1 is asked in OpenAI's way.
        model: what the model is called there.
        key: its API key, if it wants one.
    """

    def __init__(self, url: str, model: str, key: str | None = None) -> None:
        self._url = url.rstrip("/") if "://" in url else f"http://{url}".rstrip("/")
        self._model = model
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._client = httpx2.Client(timeout=600, trust_env=False, headers=headers)
        self._openai = self._url.endswith("/v1")

    def embed(self, texts: Sequence[str]) -> tuple[FloatArray, int | None]:
        """Vectors of unit length, float32 [texts, width], and the number of tokens.

        Raises:
            UnitvecError: it does not answer, or with an error.
        """
        path = "/embeddings" if self._openai else "/api/embed"
        try:
            reply = self._client.post(self._url + path, json={"model": self._model, "input": list(texts)})
        except (httpx2.HTTPError, httpx2.InvalidURL) as error:
            raise UnitvecError(f"{self._url} does not answer: {error}") from None
        try:
            answer = orjson.loads(reply.content)
            if reply.status_code != 200:
                told = answer["error"]
                raise UnitvecError(f"{self._url}: {told['message'] if isinstance(told, dict) else told}")
            rows = [item["embedding"] for item in answer["data"]] if self._openai else answer["embeddings"]
            vectors = np.array(rows, np.float32).reshape(len(texts), -1)
        except (ValueError, KeyError, TypeError):
            raise UnitvecError(f"{self._url} answered {reply.status_code}, and no vectors: is it an Ollama?") from None
        tokens = answer.get("usage", {}).get("prompt_tokens") if self._openai else answer.get("prompt_eval_count")
        return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12), tokens


def measure(endpoint: Endpoint, texts: Sequence[str], batch: int) -> tuple[FloatArray, Measured]:
    """The vectors of ``texts``, and how fast such texts come once the model is in memory."""
    parts, tokens = [], 0
    counted = True
    for vectors, count in (endpoint.embed(part) for part in _batches(texts, batch)):
        parts.append(vectors)
        counted = counted and count is not None
        tokens += count or 0
    began = time.perf_counter()
    for part in _batches(_fresh(texts), batch):
        endpoint.embed(part)
    rate = len(texts) / (time.perf_counter() - began)
    times = []
    for text in _fresh(texts)[:200]:
        began = time.perf_counter()
        endpoint.embed([text])
        times.append((time.perf_counter() - began) * 1000)
    p50, p99 = np.percentile(times, [50, 99])
    measured = Measured(tokens if counted else None, round(rate, 1), round(float(p50), 2), round(float(p99), 2))
    return np.concatenate(parts), measured


def _batches(texts: Sequence[str], size: int) -> Iterator[Sequence[str]]:
    return (texts[start : start + size] for start in range(0, len(texts), size))


def _fresh(texts: Sequence[str]) -> list[str]:
    """Such texts as no server has seen yet: one that keeps vectors must not look faster than it is."""
    return [f"{secrets.token_hex(2)} {text}" for text in texts]


def compare(there: Endpoint, here: Endpoint, model: str, texts: Sequence[str], batch: int) -> Comparison:
    """Ask both, one after the other.

    Raises:
        UnitvecError: one of them fails, or their vectors cannot be compared.
    """
    theirs, their_side = measure(there, texts, batch)
    ours, our_side = measure(here, texts, batch)
    if theirs.shape != ours.shape:
        raise UnitvecError(f"vectors of {theirs.shape[1]} and of {ours.shape[1]} dimensions: not the same model")
    cosines: npt.NDArray[np.float64] = np.einsum("ij,ij->i", theirs, ours, dtype=np.float64)
    order = [int(index) for index in np.argsort(cosines) if cosines[index] < _ALIKE]
    return Comparison(
        model=model,
        texts=len(texts),
        dimensions=ours.shape[1],
        cosine_least=round(float(cosines.min()), 6),
        cosine_mean=round(float(cosines.mean()), 6),
        under_0_999=len(order),
        there=their_side,
        here=our_side,
        different=[(round(float(cosines[index]), 6), texts[index]) for index in order],
    )


@click.command()
@click.argument("url")
@click.argument("file", required=False, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--model", default="all-minilm", show_default=True, help="What both call the model.")
@click.option("--model-there", help="What URL calls it, where that is something else.")
@setting("--here", "OLLAMA_HOST", "Where unitvec listens.", default="127.0.0.1:11434")
@setting("--api-key", "UNITVEC_API_KEY", "unitvec's key.")
@click.option("--api-key-there", help="The key of URL.")
@click.option("--batch", type=click.IntRange(min=1), default=32, show_default=True, help="Texts of a request.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object, for programs.")
def command(
    url: str,
    file: Path | None,
    model: str,
    model_there: str | None,
    here: str,
    api_key: str | None,
    api_key_there: str | None,
    batch: int,
    as_json: bool,
) -> None:
    """Compare vectors, token counts and speed with the server at URL.

    URL is an Ollama, or, where it ends in /v1, a server with OpenAI's API. FILE has a text a line; without one a
    built-in set in many scripts is sent. Both servers must be running, and have the model.
    """
    from unitvec import config

    texts = TEXTS if file is None else _lines(file)
    ours = Endpoint(config.Address.parse(here).reachable, model, api_key and api_key.split()[0])
    found = compare(Endpoint(url, model_there or model, api_key_there), ours, model, texts, batch)
    click.echo(orjson.dumps(asdict(found)).decode() if as_json else _told(found, url))


def _lines(file: Path) -> list[str]:
    try:
        texts = [line for line in file.read_text("utf-8").splitlines() if line.strip()]
    except UnicodeDecodeError:
        raise UnitvecError(f"{file} is not UTF-8") from None
    if not texts:
        raise UnitvecError(f"{file} has no text")
    return texts


def _told(found: Comparison, url: str) -> str:
    there, here = found.there, found.here
    rows = [
        ("", url, "unitvec"),
        ("tokens", *("not told" if side.tokens is None else f"{side.tokens:,}" for side in (there, here))),
        ("texts/s, in batches", f"{there.texts_per_second:,.1f}", f"{here.texts_per_second:,.1f}"),
        ("one text, p50", f"{there.p50_ms:.1f} ms", f"{here.p50_ms:.1f} ms"),
        ("one text, p99", f"{there.p99_ms:.1f} ms", f"{here.p99_ms:.1f} ms"),
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    table = [
        "  ".join([first.ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(rest, widths[1:], strict=True))])
        for first, *rest in rows
    ]
    verdict = [
        f"{found.model}: {found.texts} texts, {found.dimensions} dimensions",
        f"cosine: least {found.cosine_least:.6f}, mean {found.cosine_mean:.6f}, {found.under_0_999} under {_ALIKE}",
    ]
    texts = [f"  {cosine:.6f}  {text[:70]!r}" for cosine, text in found.different[:20]]
    more = len(found.different) - len(texts)
    return "\n".join([*verdict, *texts, *([f"  and {more} more"] if more > 0 else []), "", *table])
