"""What the handlers of every embedding route do: run the texts, while the caller is there, and note it for the log."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from unitvec.api.answers import vectors_response
from unitvec.api.busy import client_of
from unitvec.api.limits import Limits
from unitvec.engine.onnx import FloatArray
from unitvec.errors import ModelNotFound, Overloaded
from unitvec.serving.backend import Backend, Embeddings
from unitvec.serving.batcher import Ids
from unitvec.store.name import Name

T = TypeVar("T")


@dataclass(frozen=True)
class Calls:
    """Embeds for HTTP.

    Attributes:
        backend: runs the texts.
        limits: what a request may ask for.
    """

    backend: Backend
    limits: Limits

    async def read(self, request: Request, parse: Callable[[bytes], T]) -> T:
        """The body of a request, parsed."""
        body = await request.body()
        began = time.perf_counter_ns()
        asked = parse(body)
        parsed = time.perf_counter_ns()
        self.backend.counters.parse_seconds += (parsed - began) / 1e9
        request.scope["steps"] = [("parse", began, parsed)]
        return asked

    async def write(
        self,
        vectors: FloatArray,
        rows: Callable[[slice], Any],
        around: Callable[[Any], Any],
        headers: dict[str, str] | None = None,
    ) -> Response:
        """See :func:`unitvec.api.answers.vectors_response`."""
        began = time.perf_counter()
        response = await vectors_response(vectors, rows, around, headers)
        self.backend.counters.write_seconds += time.perf_counter() - began
        return response

    async def embed(
        self, request: Request, model: str, name: Name, texts: Sequence[str] | Sequence[Ids], **options: Any
    ) -> Embeddings:
        """Vectors for a request whose body has been read.

        Args:
            request: who asks.
            model: the model's name as it was sent.
            name: the same, read.
            texts: what to embed.
            options: see :meth:`unitvec.serving.backend.Backend.embed`.

        Raises:
            ClientDisconnect: nobody is there to answer.
            UnitvecError: as ``Backend.embed``, or a limit was crossed.
        """
        self.limits.check(texts)
        work = self.backend.embed(name, texts, client=client_of(request.scope), **options)
        with named_as_sent(model):
            answer = await while_connected(request, work)
        request.scope.setdefault("steps", []).extend(answer.steps)
        request.scope["log"] |= {"model": name.short, "texts": len(texts), "tokens": answer.tokens}
        return answer


async def while_connected(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """The result of ``work``, which is cancelled if the client goes away; its body must have been read.

    Raises:
        ClientDisconnect: nobody is there to answer.
    """
    task = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(request.receive())  # says nothing else once the body is read
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
    except asyncio.CancelledError:  # the server stops, and the time it gives to what is under way is over
        task.cancel()
        raise Overloaded("the server is shutting down") from None
    else:
        if not task.done():
            raise ClientDisconnect
        return task.result()
    finally:
        task.cancel()
        gone.cancel()


@contextlib.contextmanager
def named_as_sent(model: str) -> Iterator[None]:
    """A missing model is named as the caller wrote it."""
    try:
        yield
    except ModelNotFound:
        raise ModelNotFound(f'model "{model}" not found, try pulling it first') from None
