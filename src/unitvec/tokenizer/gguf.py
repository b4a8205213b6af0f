"""Rebuilds a model's Hugging Face tokenizer from GGUF metadata.

Where llama.cpp and Hugging Face depart from each other (words of over 100 characters, Hangul, special tokens written
out in a text), this follows Hugging Face: it is what models were trained with. What the metadata keys mean:
https://github.com/ggml-org/ggml/blob/master/docs/gguf.md and llama.cpp's ``convert_hf_to_gguf.py``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

_CONTROL, _USER_DEFINED = 3, 4  # kinds of tokens that are found in a text before anything else is done to it
_LONGEST_PIECE = 512  # characters; SentencePiece trains no longer ones
_SPACE = "\N{LOWER ONE EIGHTH BLOCK}"  # SentencePiece's visible space

# Where byte-level BPE cuts text into words, by ``tokenizer.ggml.pre``.
_WORDS = {
    "qwen2": r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
}


def _shown(value: object) -> str:
    """A value of any kind in a few words on one line."""
    return repr(value)[:80] if isinstance(value, str | int | float | None) else f"of type {type(value).__name__}"


class _Vocabulary:
    """The metadata under ``tokenizer.ggml.``, checked as it is taken.

    Raises:
        ValueError: what is there cannot be a vocabulary of ``size`` tokens.
    """

    def __init__(self, metadata: dict[str, Any], size: int) -> None:
        self.metadata = metadata
        self.tokens: list[str] = self.get("tokens")
        if not isinstance(self.tokens, list) or len(self.tokens) != size:
            raise ValueError(f"tokenizer.ggml.tokens is not a list of {size} strings, as many as there are embeddings")
        self.kinds = self.numbers("token_type") if self.get("token_type") is not None else np.ones(size)

    def get(self, name: str) -> Any:
        return self.metadata.get(f"tokenizer.ggml.{name}")

    def numbers(self, name: str) -> np.ndarray[Any, Any]:
        """An array with a number for each token."""
        values = self.get(name)
        if not isinstance(values, np.ndarray) or len(values) != len(self.tokens):
            raise ValueError(f"tokenizer.ggml.{name} is not an array of {len(self.tokens)} numbers")
        return values

    def scores(self) -> np.ndarray[Any, Any]:
        """float64 [tokens], a copy."""
        scores = self.numbers("scores").astype(np.float64)
        if not np.isfinite(scores).all():
            raise ValueError("tokenizer.ggml.scores has numbers that are not finite")
        return scores

    def flag(self, name: str, *, default: bool) -> bool:
        value = self.get(name)
        if not isinstance(value, bool | None):
            raise ValueError(f"tokenizer.ggml.{name} is {_shown(value)}")
        return default if value is None else value

    def id_of(self, *names: str) -> int:
        """The first of the token ids under ``names`` that is there."""
        for name in names:
            if (number := self.get(name)) is not None:
                if not isinstance(number, int) or not 0 <= number < len(self.tokens):
                    raise ValueError(f"tokenizer.ggml.{name} is {_shown(number)}")
                return number
        raise ValueError(f"tokenizer.ggml.{names[0]} is missing")

    def ids(self, tokens: list[str]) -> dict[str, int]:
        """Token ids by their text; of equal ones the first counts."""
        ids: dict[str, int] = {}
        for number, token in enumerate(tokens):
            ids.setdefault(token, number)
        return ids

    def are(self, kind: int) -> list[int]:
        return [int(number) for number in np.flatnonzero(self.kinds == kind)]


def build(metadata: dict[str, Any], size: int) -> Tokenizer:
    """The tokenizer of a model with ``size`` token embeddings; it puts begin and end tokens as the metadata says.

    Raises:
        ValueError: the metadata is incomplete, contradicts itself or names a kind that is not supported.
    """
    vocabulary = _Vocabulary(metadata, size)
    kind = vocabulary.get("model")
    family = _FAMILIES.get(kind) if isinstance(kind, str) else None
    if family is None:
        raise ValueError(f"tokenizer {_shown(kind)} is not supported; supported: {', '.join(_FAMILIES)}")
    try:
        return family(vocabulary)
    except (ValueError, KeyboardInterrupt):
        raise
    except BaseException as error:  # the library raises nothing narrower, and panics are no Exception
        raise ValueError(f"its tokenizer cannot be built: {' '.join(str(error).split())[:200]}") from None


def _add_special_tokens(tokenizer: Tokenizer, vocabulary: _Vocabulary, tokens: list[str]) -> None:
    """Make control and user-defined tokens known wherever they are written out in a text."""
    added = [tokens[number] for number in vocabulary.are(_CONTROL) if tokens[number]]
    tokenizer.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in added])
    added = [tokens[number] for number in vocabulary.are(_USER_DEFINED) if tokens[number]]
    tokenizer.add_tokens([AddedToken(token, normalized=False, special=False) for token in added])


def _frame(tokenizer: Tokenizer, begin: int | None, end: int | None) -> None:
    """Put the tokens with these ids before and behind each text."""
    frame = [(tokenizer.id_to_token(number), number) for number in (begin, end) if number is not None]
    before = [] if begin is None else [frame[0][0]]
    after = [] if end is None else [frame[-1][0]]
    template = processors.TemplateProcessing(single=[*before, "$A", *after], special_tokens=list(dict(frame).items()))
    tokenizer.post_processor = template


def _framed(tokenizer: Tokenizer, vocabulary: _Vocabulary, *, begin: bool, end: bool) -> Tokenizer:
    """``begin`` and ``end`` are what this kind of tokenizer does where the metadata says nothing."""
    has_begin = vocabulary.flag("add_bos_token", default=begin)
    has_end = vocabulary.flag("add_eos_token", default=end)
    _frame(
        tokenizer,
        vocabulary.id_of("bos_token_id") if has_begin else None,
        vocabulary.id_of("eos_token_id") if has_end else None,
    )
    return tokenizer


def _wordpiece(vocabulary: _Vocabulary) -> Tokenizer:
    """BERT's. GGUF marks the beginnings of words, Hugging Face what continues one."""
    control = set(vocabulary.are(_CONTROL))
    tokens = []
    for number, token in enumerate(vocabulary.tokens):
        if token.startswith(_SPACE):
            token = token[1:]
        elif number not in control and not (token.startswith("[") and token.endswith("]") and len(token) > 1):
            token = f"##{token}"
        tokens.append(token)
    unknown = vocabulary.id_of("unknown_token_id")
    model = models.WordPiece(vocabulary.ids(tokens), unk_token=tokens[unknown], max_input_chars_per_word=100)
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=vocabulary.flag("normalizer.lowercase", default=True))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    begin = vocabulary.id_of("cls_token_id", "bos_token_id")
    end = vocabulary.id_of("seperator_token_id", "eos_token_id")  # spelled so in the format
    special = {begin, end, unknown}
    for name in ("padding_token_id", "mask_token_id"):
        if vocabulary.get(name) is not None:
            special.add(vocabulary.id_of(name))
    tokenizer.add_special_tokens([AddedToken(tokens[number], normalized=False) for number in sorted(special)])
    _add_special_tokens(tokenizer, vocabulary, tokens)
    _frame(
        tokenizer,
        begin if vocabulary.flag("add_bos_token", default=True) else None,
        end if vocabulary.flag("add_eos_token", default=True) else None,
    )
    return tokenizer


def _merges(tokens: list[str], scores: np.ndarray[Any, Any]) -> list[tuple[str, str]]:
    """The merges of a SentencePiece BPE model in the order in which they apply.

    SentencePiece keeps scores, not merges: of all neighbours that make a token, those of the best score are merged
    first. As a list these are all splits of all tokens into two others, by score; among equal ones those with the
    longer parts come first, as ``transformers`` orders them.
    """
    if (longest := max(map(len, tokens))) > _LONGEST_PIECE:  # the work goes with the square of a token's length
        raise ValueError(f"tokenizer.ggml.tokens has a token of {longest} characters")
    known = set(tokens)
    pieces: list[int] = []
    lefts: list[str] = []
    rights: list[str] = []
    for number, token in enumerate(tokens):
        for cut in range(1, len(token)):
            if (left := token[:cut]) in known and (right := token[cut:]) in known:
                pieces.append(number)
                lefts.append(left)
                rights.append(right)
    lengths = [np.fromiter(map(len, parts), np.int64, len(parts)) for parts in (rights, lefts)]
    order = np.lexsort((-lengths[0], -lengths[1], -scores[pieces]))
    return [(lefts[n], rights[n]) for n in order.tolist()]


def _sentencepiece(vocabulary: _Vocabulary) -> Tokenizer:
    """SentencePiece's BPE, as Gemma has it."""
    tokens = list(vocabulary.tokens)
    scores = vocabulary.scores()
    for kind in (_CONTROL, _USER_DEFINED):
        scores[vocabulary.kinds == kind] = 0  # as the original has them; converters write -1000
    for number in vocabulary.are(_USER_DEFINED):
        tokens[number] = tokens[number].replace(" ", _SPACE)  # converters write runs of spaces out
    unknown = tokens[vocabulary.id_of("unknown_token_id")]
    merges = _merges(tokens, scores)
    model = models.BPE(vocabulary.ids(tokens), merges, unk_token=unknown, fuse_unk=True, byte_fallback=True)
    tokenizer = Tokenizer(model)
    spaces: list[normalizers.Normalizer] = [normalizers.Replace(" ", _SPACE)]
    # llama.cpp's converter always says; files of Gemma that do not are Ollama's, which knows no prefix.
    is_gemma = str(vocabulary.metadata.get("general.architecture")).startswith("gemma")
    if vocabulary.flag("add_space_prefix", default=not is_gemma):
        spaces.insert(0, normalizers.Prepend(_SPACE))
    tokenizer.normalizer = normalizers.Sequence(spaces)
    tokenizer.decoder = decoders.Sequence([decoders.Replace(_SPACE, " "), decoders.ByteFallback(), decoders.Fuse()])
    _add_special_tokens(tokenizer, vocabulary, tokens)
    return _framed(tokenizer, vocabulary, begin=True, end=False)


def _byte_level(vocabulary: _Vocabulary) -> Tokenizer:
    """Byte-level BPE, as Qwen has it."""
    kind = vocabulary.get("pre")
    if kind not in _WORDS:
        raise ValueError(f"tokenizer.ggml.pre {_shown(kind)} is not supported; supported: {', '.join(_WORDS)}")
    merges = vocabulary.get("merges")
    if not isinstance(merges, list):
        raise ValueError("tokenizer.ggml.merges is not a list of strings")
    pairs = [(left, right) for left, _, right in (merge.partition(" ") for merge in merges)]
    if not all(right for _, right in pairs):
        raise ValueError("tokenizer.ggml.merges has an entry that is not two parts")
    tokenizer = Tokenizer(models.BPE(vocabulary.ids(vocabulary.tokens), pairs))
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_WORDS[kind]), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    _add_special_tokens(tokenizer, vocabulary, vocabulary.tokens)
    return _framed(tokenizer, vocabulary, begin=False, end=False)


def _unigram(vocabulary: _Vocabulary) -> Tokenizer:
    """SentencePiece's unigram model, as XLM-RoBERTa has it."""
    scores = vocabulary.scores().tolist()
    if len(set(vocabulary.tokens)) != len(scores):
        raise ValueError("tokenizer.ggml.tokens has one token twice")
    pieces = list(zip(vocabulary.tokens, scores, strict=True))
    tokenizer = Tokenizer(models.Unigram(pieces, vocabulary.id_of("unknown_token_id"), byte_fallback=False))
    charsmap = vocabulary.get("precompiled_charsmap")
    if isinstance(charsmap, np.ndarray):
        tokenizer.normalizer = normalizers.Precompiled(charsmap.tobytes())
    metaspace = pre_tokenizers.Metaspace(
        _SPACE, prepend_scheme="always" if vocabulary.flag("add_space_prefix", default=True) else "never"
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), metaspace])
    tokenizer.decoder = decoders.Metaspace(_SPACE)
    _add_special_tokens(tokenizer, vocabulary, vocabulary.tokens)
    return _framed(tokenizer, vocabulary, begin=False, end=True)


_FAMILIES: dict[str, Callable[[_Vocabulary], Tokenizer]] = {
    "bert": _wordpiece,
    "gpt2": _byte_level,
    "llama": _sentencepiece,
    "t5": _unigram,
}
