"""What a server has done since it started, for ``/metrics`` and for benchmarks. Sums only: rates are the reader's."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass, field, fields

BATCH_TOKENS = (16, 32, 64, 128, 256, 512, 1024, 2048, 4096)  # upper bounds; a last bucket has the rest


@dataclass
class Counters:
    """Counts of events and sums of seconds.

    Attributes:
        requests: embedding requests that were let in; ``rejected`` met a full queue, ``cancelled`` lost their client.
        texts, tokens: that were run, each shared or cached text once.
        batches: micro-batches; ``batch_tokens`` counts them by size, a bucket for each of BATCH_TOKENS and one more.
        attention_places: all of [B, S] of all micro-batches; what exceeds ``tokens`` is padding.
        tokenize_seconds, wait_seconds, run_seconds: tokenizing, from submission to the first text's run, running.
        parse_seconds, write_seconds: reading requests, writing answers.
        cache_hits, cache_misses: texts that were found among finished vectors, and that were not.
        loads, load_seconds: models that were read into memory.
    """

    requests: int = 0
    rejected: int = 0
    cancelled: int = 0
    texts: int = 0
    tokens: int = 0
    batches: int = 0
    batch_tokens: list[int] = field(default_factory=lambda: [0] * (len(BATCH_TOKENS) + 1))
    attention_places: int = 0
    parse_seconds: float = 0.0
    tokenize_seconds: float = 0.0
    wait_seconds: float = 0.0
    run_seconds: float = 0.0
    write_seconds: float = 0.0
    cache_hits: int = 0
    cache_misses: int = 0
    loads: int = 0
    load_seconds: float = 0.0

    def __add__(self, other: Counters) -> Counters:
        """The sums of two processes."""
        added = {field.name: getattr(self, field.name) + getattr(other, field.name) for field in fields(self)}
        added["batch_tokens"] = list(map(sum, zip(self.batch_tokens, other.batch_tokens, strict=True)))
        return Counters(**added)

    def ran(self, lengths: list[int], seconds: float) -> None:
        """A micro-batch of texts of ``lengths`` tokens has run."""
        tokens = sum(lengths)
        self.batches += 1
        self.texts += len(lengths)
        self.tokens += tokens
        self.batch_tokens[bisect_left(BATCH_TOKENS, tokens)] += 1
        self.attention_places += len(lengths) * max(lengths)
        self.run_seconds += seconds
