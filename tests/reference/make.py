"""Writes tests/data/reference.npz: a thousand varied texts and their vectors by sentence-transformers in fp32.

python -m tests.reference.make        needs: pip install '.[reference]', and all-minilm fetched
"""

from __future__ import annotations

import importlib
import inspect
import json
import random
import unicodedata
from pathlib import Path

import numpy as np

COUNT = 1000
PATH = Path(__file__).parents[1] / "data" / "reference.npz"
MODULES = ["argparse", "asyncio", "collections", "csv", "datetime", "decimal", "difflib", "email", "fractions", "functools", "gettext", "heapq", "html", "http", "inspect", "ipaddress", "itertools", "json", "locale", "logging", "math", "mimetypes", "operator", "os", "pathlib", "pickle", "random", "re", "secrets", "shutil", "socket", "sqlite3", "statistics", "string", "struct", "subprocess", "tarfile", "tempfile", "textwrap", "threading", "tokenize", "traceback", "typing", "unittest", "urllib", "uuid", "warnings", "zipfile"]  # fmt: skip
SENTENCES = [
    "Why is the sky blue?", "Warum ist der Himmel blau?", "Pourquoi le ciel est-il bleu ?", "¿Por qué el cielo es azul?",
    "Почему небо голубое?", "天空为什么是蓝色的？", "空はなぜ青いのですか？", "하늘은 왜 파란가요?", "لماذا السماء زرقاء؟",
    "आसमान नीला क्यों है?", "Γιατί ο ουρανός είναι γαλάζιος;", "למה השמיים כחולים?", "ทำไมท้องฟ้าถึงเป็นสีฟ้า", "Gökyüzü neden mavi?",
    "Dlaczego niebo jest niebieskie?", "Tại sao bầu trời màu xanh?", "Чому небо блакитне?", "ცა რატომ არის ლურჯი?",
    "እሰማይ ለምን ሰማያዊ ነው?", "வானம் ஏன் நீலமாக இருக்கிறது?", "Miért kék az ég?", "Proč je nebe modré?",
]  # fmt: skip
ODD = [
    "", " ", "\n\n\t", "a", "I ❤️ 🍕 👨‍👩‍👧‍👦 🇩🇪", "a\0b\1c\u200bd", "[CLS] hello [SEP] [MASK] [PAD] <s></s>", "x" * 99, "x" * 101, "x" * 5000,
    "Café naïve résumé Ångström ﬁ ½ №", "e\u0301 vs é", "ＦＵＬＬ ｗｉｄｔｈ", "ǅ ß ẞ İ ı ſ", "1234567890 " * 30, "!?." * 100,
    "def f(x):\n\treturn x**2  # square\n", "<html><body class='x'>&amp;</body></html>", '{"key": [1, 2.5e-3, null]}',
    "https://example.org/a/b?c=d&e=%20f#g", "SELECT * FROM t WHERE a = 'b';", "\u202eright to left\u202c", "\ufeffbyte order mark",
]  # fmt: skip


def texts() -> list[str]:
    """Prose, code, scripts, symbols, nothing at all; from no characters to many times the context."""
    chance = random.Random(20261122)
    prose = [line for name in MODULES for line in _docstrings(name)]
    found = [*SENTENCES, *ODD]
    planes = [chr(c) for c in range(0x20, 0x1FAFF) if unicodedata.category(chr(c))[0] in "LMNPSZ"]
    for _ in range(100):
        found.append("".join(chance.choices(planes, k=chance.randint(1, 120))))
        found.append(" ".join(chance.choices(SENTENCES, k=chance.randint(2, 6))))
    found += chance.sample(prose, 400)
    while len(found) < COUNT:
        found.append("\n".join(chance.sample(prose, chance.randint(2, 12))))
    chance.shuffle(found)
    return found[:COUNT]


def _docstrings(name: str) -> list[str]:
    module = importlib.import_module(name)
    members = [module, *(member for _, member in inspect.getmembers(module))]
    paragraphs = [p.strip() for m in members for p in (inspect.getdoc(m) or "").split("\n\n")]
    return sorted({p for p in paragraphs if len(p) > 40})


def vectors(texts: list[str], folder: Path) -> np.ndarray:
    """float32 [texts, 384], one text at a time, so that no neighbour can matter."""
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(folder), device="cpu")
    model.max_seq_length = 256
    return np.asarray(model.encode(texts, batch_size=1, normalize_embeddings=True), np.float32)


def load() -> tuple[list[str], np.ndarray]:
    """The texts and their vectors, as they were written."""
    with np.load(PATH) as kept:
        return json.loads(kept["texts"].tobytes()), kept["vectors"]


def main() -> None:
    from unitvec import config
    from unitvec.store.name import Name

    stored = config.stores().find(Name.parse("all-minilm"))
    assert stored is not None, "fetch it first: unitvec embed all-minilm x"
    chosen = texts()
    PATH.parent.mkdir(exist_ok=True)
    packed = np.frombuffer(json.dumps(chosen).encode(), np.uint8)  # numpy's own strings drop a NUL at the end
    np.savez_compressed(PATH, texts=packed, vectors=vectors(chosen, Path(stored.weights)))


if __name__ == "__main__":
    main()
