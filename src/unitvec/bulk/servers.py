"""Embeds the texts of windows on running servers, as many at once as there are."""

from __future__ import annotations

import contextlib
import os
import random
import threading
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

import httpx2 as httpx
import numpy as np
import orjson

from unitvec import config
from unitvec.bulk.groups import by_length
from unitvec.bulk.window import Embedded
from unitvec.engine.onnx import FloatArray
from unitvec.errors import UnitvecError
from unitvec.store.name import Name

_TEXTS = 64  # of a request
_CHARACTERS = 200_000  # likewise, so that no server is long at one
_IN_FLIGHT = 3  # requests to a server: one runs, one waits, one is on its way
_TIMEOUT = 300.0  # seconds without a byte until a server counts as dead
_LONGEST_PAUSE = 15.0  # seconds between tries
_TRIES = 5  # of a request that a server fails at each time
_TEXT_REFUSED = (400, 413, 422)
_TRY_AGAIN = (408, 429, 500, 502, 503, 504)


@dataclass(eq=False)
class _Request:
    """Some texts that one server is to embed."""

    texts: list[str]
    failures: int = 0  # of servers at it
    answer: Future[tuple[FloatArray, int]] = field(default_factory=Future)


class _Refused(Exception):
    """A server says that it cannot embed what it was sent, and why."""


class _Unavailable(Exception):
    """A server cannot answer now."""

    def __init__(self, why: str, pause: float = 0.0, *, is_up: bool = False, failed: bool = False) -> None:
        super().__init__(why)
        self.pause = pause  # seconds that it asks for
        self.is_up = is_up  # it is there, and has what it had
        self.failed = failed  # at these texts, perhaps


class Servers:
    """Running servers that have the same model: a :class:`unitvec.bulk.executor.Executor`.

    Requests of a window wait in one line; each server takes the next when it has finished one. What a server cannot
    answer goes back to the head of the line, for the others or for itself later on.

    Args:
        urls: of the servers, in the form of ``OLLAMA_HOST``.
        model: its name there.
        truncate: cut what is longer than the context, or refuse it.
        dimensions: as ``/api/embed`` has it; 0 leaves vectors as they are.
        context: tokens a text may have; None for what each server does.
        patience: seconds that all servers may be silent before the run gives up.

    Raises:
        UnitvecError: none of them answers, one has not the model, or not the same one.
    """

    def __init__(
        self,
        urls: Sequence[str],
        model: str,
        *,
        truncate: bool = True,
        dimensions: int = 0,
        context: int | None = None,
        patience: float = 120.0,
    ) -> None:
        self._model = model
        self._fields: dict[str, Any] = {"model": model, "truncate": truncate}
        self._fields |= {"dimensions": dimensions} if dimensions else {}
        self._fields |= {"options": {"num_ctx": context}} if context is not None else {}
        self._patience = patience
        self._line: deque[_Request] = deque()
        self._changed = threading.Condition()
        self._failed: UnitvecError | None = None
        self._ended = threading.Event()
        self._silent: dict[str, float] = {}  # servers that do not answer, and since when
        key = os.environ.get("UNITVEC_API_KEY", "").split(",")[0].strip()
        self._client = httpx.Client(
            headers={"Authorization": f"Bearer {key}"} if key else {},
            timeout=httpx.Timeout(_TIMEOUT, connect=5.0),
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=None),
        )
        addresses = list(dict.fromkeys(config.Address.parse(url).reachable for url in urls))
        self.digest, self.width = self._probe(addresses)
        self._servers = len(addresses)
        self.ahead = 1 + self._servers
        self._threads = [
            threading.Thread(target=self._serve, args=(url,), name=f"{url}-{number}", daemon=True)
            for url in addresses
            for number in range(_IN_FLIGHT)
        ]
        for thread in self._threads:
            thread.start()

    def __call__(self, texts: Sequence[str]) -> Embedded:
        """See :class:`unitvec.bulk.executor.Executor`."""
        groups = list(by_length(dict(enumerate(map(len, texts))), most=_CHARACTERS, count=_TEXTS))
        requests = [_Request([texts[index] for index in group]) for group in groups]
        self._enqueue(requests)
        vectors = np.zeros((len(texts), self.width), np.float32)
        refused: dict[int, str] = {}
        tokens = 0
        waiting = deque(zip(groups, requests, strict=True))
        while waiting:
            group, request = waiting.popleft()
            try:
                vectors[group], count = request.answer.result()
                tokens += count
            except _Refused as reason:
                if len(group) == 1:
                    refused[group[0]] = str(reason)
                    continue
                # Which of them it was is not said: the halves will tell.
                middle = len(group) // 2
                halves = [
                    (half, _Request([texts[index] for index in half])) for half in (group[:middle], group[middle:])
                ]
                self._enqueue([half for _, half in halves], first=True)
                waiting.extendleft(reversed(halves))
        return Embedded(vectors, tokens, refused)

    def close(self) -> None:
        """See :class:`unitvec.bulk.executor.Executor`."""
        self._give_up(UnitvecError("stopped"))
        self._client.close()

    def _probe(self, urls: list[str]) -> tuple[str, int]:
        """The model's digest and width, as all servers have it that answer now."""
        found: dict[str, tuple[str, int]] = {}
        silent = []
        for url in urls:
            try:
                found[url] = self._digest(url), self._ask(url, ["width"])[0].shape[1]
            except _Refused as reason:
                raise UnitvecError(f"{url}: {reason}") from None
            except _Unavailable as error:
                silent.append(str(error))
        if not found:
            raise UnitvecError(f"no server answers: {'; '.join(silent)}")
        (first, seen), *others = found.items()
        for url, other in others:
            if other != seen:
                raise UnitvecError(f"{self._model} on {url} ({other[0][:12]}) is not that on {first} ({seen[0][:12]})")
        return seen

    def _digest(self, url: str) -> str:
        try:
            self._post(url, {"input": []})  # loads the model, so that it is listed even where it is pulled by need
        except _Refused as reason:
            raise UnitvecError(f"{url}: {reason}") from None
        wanted = Name.parse(self._model)
        listed = self._send(url, "GET", "/api/tags").get("models", [])
        for model in listed:
            if Name.parse(model["name"]) == wanted:
                return str(model["digest"])
        raise UnitvecError(f"{url} does not list {self._model}: nothing says which model it is")

    def _serve(self, url: str) -> None:
        """Take requests from the line for one server, until the end."""
        checked = False
        pause = 0.0
        while (request := self._take()) is not None:
            try:
                if not checked and self._digest(url) != self.digest:
                    raise UnitvecError(f"{self._model} on {url} is another model now")
                checked = True
                answer = self._ask(url, request.texts)
            except _Unavailable as error:
                checked = checked and error.is_up
                request.failures += error.failed
                self._put_back(request)
                if request.failures >= _TRIES:
                    self._give_up(UnitvecError(str(error)))
                pause = min(_LONGEST_PAUSE, max(2 * pause, 0.1))
                self._rest(url, str(error), max(error.pause, pause * random.uniform(0.5, 1.0)))  # noqa: S311
            except _Refused as reason:
                request.answer.set_exception(reason)
            except Exception as error:  # whatever it is, those who wait must hear of it
                self._put_back(request)
                self._give_up(error if isinstance(error, UnitvecError) else UnitvecError(f"{url}: {error!r}"))
            else:
                pause = 0.0
                with self._changed:
                    self._silent.pop(url, None)
                request.answer.set_result(answer)

    def _rest(self, url: str, why: str, seconds: float) -> None:
        """Wait before the next try, unless all servers have been silent for too long."""
        with self._changed:
            now = time.monotonic()
            self._silent.setdefault(url, now)
            lost = len(self._silent) == self._servers and now - max(self._silent.values()) >= self._patience
        if lost:
            self._give_up(UnitvecError(f"no server has answered for {self._patience:.0f} seconds: {why}"))
        self._ended.wait(seconds)

    def _enqueue(self, requests: Sequence[_Request], *, first: bool = False) -> None:
        with self._changed:
            if self._failed is not None:
                raise self._failed
            if first:
                self._line.extendleft(reversed(requests))
            else:
                self._line.extend(requests)
            self._changed.notify(len(requests))

    def _take(self) -> _Request | None:
        with self._changed:
            self._changed.wait_for(lambda: self._line or self._failed is not None)
            return self._line.popleft() if self._failed is None else None

    def _put_back(self, request: _Request) -> None:
        with self._changed:
            if self._failed is None:
                self._line.appendleft(request)
                self._changed.notify()
                return
        request.answer.set_exception(self._failed)

    def _give_up(self, error: UnitvecError) -> None:
        """Nothing is embedded from now on; those who wait get the error."""
        with self._changed:
            if self._failed is None:
                self._failed = error
            waiting = list(self._line)
            self._line.clear()
            self._changed.notify_all()
        self._ended.set()
        for request in waiting:
            request.answer.set_exception(self._failed)

    def _ask(self, url: str, texts: Sequence[str]) -> tuple[FloatArray, int]:
        """Vectors of texts, and how many tokens they had."""
        answer = self._post(url, {"input": texts})
        vectors = np.array(answer["embeddings"], np.float32)
        if vectors.ndim != 2 or len(vectors) != len(texts):
            raise UnitvecError(f"{url} answered {len(texts)} texts with vectors of shape {vectors.shape}")
        return vectors, int(answer.get("prompt_eval_count", 0))

    def _post(self, url: str, fields: dict[str, Any]) -> dict[str, Any]:
        return self._send(url, "POST", "/api/embed", orjson.dumps(self._fields | fields))

    def _send(self, url: str, method: str, path: str, body: bytes | None = None) -> dict[str, Any]:
        headers = {"Content-Type": "application/json"} if body else {}
        try:
            response = self._client.request(method, url + path, content=body, headers=headers)
        except httpx.HTTPError as error:
            raise _Unavailable(f"{url}: {error or type(error).__name__}") from None
        value: Any = None
        with contextlib.suppress(orjson.JSONDecodeError):
            value = orjson.loads(response.content)
        if response.status_code == 200 and isinstance(value, dict):
            return value
        said = str(value["error"]) if isinstance(value, dict) and "error" in value else response.reason_phrase
        why = f"{url}: {said} ({response.status_code})"
        if response.status_code in _TEXT_REFUSED:
            raise _Refused(said)
        if response.status_code in _TRY_AGAIN:
            after = response.headers.get("retry-after", "")
            raise _Unavailable(
                why,
                min(float(after), _LONGEST_PAUSE) if after.isdigit() else 0.0,
                is_up=True,
                failed=response.status_code == 500,
            )
        if response.status_code in (401, 403):
            why += "; its key goes into UNITVEC_API_KEY"
        raise UnitvecError(why)
