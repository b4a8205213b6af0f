"""A running unitvec, if there is one: commands that change models go through it, so that it knows."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterable, Iterator
from typing import Any

import httpx2 as httpx

from unitvec import config
from unitvec.errors import UnitvecError
from unitvec.store.progress import Progress, Report


class Client:
    """A server's API. Every method raises UnitvecError with what the server answers, or that nobody does."""

    def __init__(self, address: config.Address) -> None:
        key = next(iter(os.environ.get("UNITVEC_API_KEY", "").split()), "")  # a server may have several
        self._client = httpx.Client(
            base_url=address.reachable,
            timeout=httpx.Timeout(None, connect=5.0),
            headers={"Authorization": f"Bearer {key}"} if key else {},
        )
        self._address = address

    def is_unitvec(self) -> bool:
        """Whether a unitvec answers there."""
        with contextlib.suppress(httpx.HTTPError, ValueError):
            return "unitvec" in self._client.get("/api/version", timeout=2.0).json()
        return False

    def call(self, method: str, path: str, body: Any = None) -> Any:
        """The decoded answer, None where it is empty."""
        with self._told():
            response = self._client.request(method, path, json=body)
            _raise(response)
            return response.json() if response.content else None

    def stream(self, path: str, body: Any, report: Report) -> None:
        """Reports each line of the answer."""
        with self._told(), self._client.stream("POST", path, json=body) as response:
            if response.status_code >= 400:
                response.read()
            _raise(response)
            for line in response.iter_lines():
                step = json.loads(line)
                if "error" in step:
                    raise UnitvecError(str(step["error"]))
                report(Progress(step["status"], step.get("digest"), step.get("total"), step.get("completed")))

    def upload(self, digest: str, chunks: Iterable[bytes]) -> None:
        """Sends a blob unless it is there."""
        with self._told():
            if self._client.head(f"/api/blobs/{digest}").status_code != 200:
                _raise(self._client.post(f"/api/blobs/{digest}", content=chunks))

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except httpx.ConnectError:
            raise UnitvecError(
                f"no server answers on {self._address.reachable}: start one with `unitvec serve`"
            ) from None
        except (httpx.HTTPError, ValueError) as error:
            raise UnitvecError(f"the server on {self._address.reachable} broke off: {error}") from None


def _raise(response: httpx.Response) -> None:
    if response.status_code < 400:
        return
    try:
        message = str(response.json()["error"])
    except (ValueError, KeyError, TypeError):
        message = f"the server answered {response.status_code} {response.reason_phrase}"
    raise UnitvecError(message)


def server() -> Client:
    """The server of ``OLLAMA_HOST``, whether it runs or not."""
    return Client(config.Address.parse(os.environ.get("OLLAMA_HOST", "")))


def running() -> Client | None:
    """The unitvec that runs there. Without one, commands work on the stores themselves."""
    client = server()
    return client if client.is_unitvec() else None
