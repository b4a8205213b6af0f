"""The registry's HTTP protocol (Docker Registry v2), as far as models need it.

Works with registries that hand out blobs themselves and with those that redirect to another host; with open ones
and with those that want a bearer token or a password (the 401 challenge). Proxies come from the environment,
certificates from the system's store or ``SSL_CERT_FILE``.
"""

from __future__ import annotations

import contextlib
import re
import socket
import time
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any, TypeVar

import httpx2 as httpx

from unitvec import __version__
from unitvec.errors import FetchFailed, ModelNotFound
from unitvec.store import credentials, manifest
from unitvec.store.name import Name

_REDIRECTS = {301, 302, 303, 307, 308}
_MAX_REDIRECTS = 10
_TRANSIENT = {408, 425, 429, 500, 502, 503, 504}
_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)")
_PARAMETER = re.compile(r'(\w+)="([^"]*)"')
_NOT_TLS = ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "UNKNOWN_PROTOCOL", "HTTP_REQUEST")


T = TypeVar("T")


class Transient(FetchFailed):
    """It may work the next time; ``retry_after`` is how many seconds the server wants to be left alone."""

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class Unreachable(Transient):
    """Nobody is there."""


def patiently(work: Callable[[], T], tries: int = 4) -> T:
    """The result of ``work``, which is tried again after a pause where that may help; not where nobody is there."""
    for failures in range(1, tries):
        try:
            return work()
        except Unreachable:
            raise
        except Transient as error:
            time.sleep(min(0.5 * 2**failures if error.retry_after is None else error.retry_after, 10.0))
    return work()


class NoRanges(FetchFailed):
    """The server only hands out whole blobs."""


class Body:
    """A part of a blob that is arriving."""

    def __init__(self, response: httpx.Response) -> None:
        self._response = response

    def __iter__(self) -> Iterator[bytes]:
        try:
            yield from self._response.iter_raw()
        except httpx.TimeoutException:
            raise Transient(f"{self._response.url.host} stalled") from None
        except httpx.HTTPError as error:
            raise Transient(f"connection to {self._response.url.host} was cut: {error}") from None

    def abort(self) -> None:
        """Wakes the thread that waits for the next bytes; it gets an error."""
        with contextlib.suppress(Exception):
            self._response.extensions["network_stream"].get_extra_info("socket").shutdown(socket.SHUT_RDWR)


class Registry:
    """A connection to the registry of a model's name, for any number of threads.

    Args:
        name: which model.
        insecure: allow plain HTTP, and certificates that nobody vouches for.
        patience: seconds without a byte after which a request has stalled.
    """

    def __init__(self, name: Name, *, insecure: bool = False, patience: float = 30.0) -> None:
        self._name = name
        self._insecure = insecure
        self._client = httpx.Client(
            verify=not insecure,
            timeout=httpx.Timeout(patience, connect=10.0, pool=None),
            headers={"User-Agent": f"unitvec/{__version__}", "Accept-Encoding": "identity"},
            limits=httpx.Limits(max_connections=None),
        )
        self._base = f"{name.scheme if insecure else 'https'}://{name.host}"
        self._probed = not insecure or name.scheme == "http"
        self._authorization: str | None = None  # what it is shown, once it has asked
        self._direct: dict[str, httpx.URL] = {}  # where blobs really lie

    def __enter__(self) -> Registry:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._client.close()

    def manifest(self) -> bytes:
        """The bytes of the model's manifest.

        Raises:
            ModelNotFound: the registry has no such model.
            FetchFailed: it cannot be reached, or does not answer as it should; Transient where another try may help.
        """
        with self._request("GET", self._url("manifests", self._name.tag), {"Accept": manifest.MEDIA_TYPE}) as response:
            _expect(response, 200)
            data = bytearray()
            for chunk in Body(response):
                data += chunk
                if len(data) > manifest.MAX_SIZE:
                    raise FetchFailed(f"{self._name.host} sent no manifest: it is too large")
            return bytes(data)

    @contextlib.contextmanager
    def open(self, digest: str, start: int, stop: int, size: int) -> Iterator[Body]:
        """The bytes ``start`` to ``stop`` of a blob of ``size`` bytes; all of it is asked for without a range.

        Raises:
            NoRanges: the server sends the whole blob instead.
            Transient, FetchFailed: as for ``manifest``.
        """
        whole = (start, stop) == (0, size)
        headers = {} if whole else {"Range": f"bytes={start}-{stop - 1}"}
        known = self._direct.get(digest)
        with self._request("GET", known or self._url("blobs", digest), headers) as response:
            elsewhere = not self._is_home(response.url)
            if elsewhere and response.status_code in (400, 401, 403, 404, 410):  # signed addresses expire
                self._direct.pop(digest, None)
                raise Transient(f"{response.url.host} does not hand out {digest}: {response.status_code}")
            if response.status_code == 200 and not whole:
                raise NoRanges(f"{response.url.host} does not send parts of a blob")
            _expect(response, 200 if whole else 206)
            if not whole:
                found = _CONTENT_RANGE.fullmatch(response.headers.get("content-range", ""))
                if found is None or int(found[1]) != start or found[3] not in ("*", str(size)):
                    raise Transient(f"{response.url.host} sent another part of a blob than was asked for")
            if elsewhere:
                self._direct[digest] = response.url
            yield Body(response)

    def has(self, digest: str) -> bool:
        """Whether the registry has a blob of the model."""
        with self._request("HEAD", self._url("blobs", digest)) as response:
            if response.status_code != 404:
                _expect(response, 200)
            return response.status_code == 200

    def upload(self, digest: str, size: int, chunks: Callable[[], Iterator[bytes]]) -> None:
        """Sends a blob; ``chunks`` begins anew each time it is called.

        Raises:
            FetchFailed: the registry does not take it; Transient where another try may help.
        """
        with self._request("POST", f"{self._url('blobs', 'uploads')}/", {"Content-Length": "0"}) as response:
            _expect(response, 202)
            if "location" not in response.headers:
                raise FetchFailed(f"{response.url.host} takes no blobs: it does not say where to send them")
            place = response.url.join(response.headers["location"]).copy_merge_params({"digest": digest})
        headers = {"Content-Type": "application/octet-stream", "Content-Length": str(size)}
        with self._request("PUT", place, headers, content=chunks) as response:
            _expect(response, 201)

    def put_manifest(self, data: bytes) -> None:
        """Names the model in the registry, all its blobs being there.

        Raises:
            FetchFailed: the registry does not take it.
        """
        headers = {"Content-Type": manifest.MEDIA_TYPE}
        with self._request("PUT", self._url("manifests", self._name.tag), headers, content=data) as response:
            _expect(response, 201)

    def _url(self, kind: str, reference: str) -> str:
        return f"{self._reachable()}/v2/{self._name.repository}/{kind}/{reference}"

    def _reachable(self) -> str:
        """Where it answers; one that may be insecure is asked by HTTPS first."""
        if not self._probed:
            try:
                self._client.get(f"{self._base}/v2/")
            except httpx.HTTPError:
                self._base = f"http://{self._name.host}"
            self._probed = True
        return self._base

    @contextlib.contextmanager
    def _request(
        self, method: str, url: str | httpx.URL, headers: dict[str, str] | None = None, content: Any = None
    ) -> Iterator[httpx.Response]:
        """Sends a request, follows redirects, and answers a challenge once."""
        target, challenged = httpx.URL(url), False
        for _ in range(_MAX_REDIRECTS + 2):
            body = content() if callable(content) else content  # afresh each time: an iterator is spent
            response = self._send(method, target, dict(headers or {}), body)
            with contextlib.closing(response):
                if response.status_code == 401 and self._is_home(target) and not challenged:
                    challenged = True
                    self._authorization = self._answer(response.headers.get("www-authenticate", ""))
                elif response.status_code in _REDIRECTS and "location" in response.headers:
                    target = target.join(response.headers["location"])
                    if target.scheme not in ("http", "https"):
                        raise FetchFailed(f"{self._name.host} redirects to {target.scheme!r}")
                else:
                    yield response
                    return
        raise FetchFailed(f"{self._name.host} redirects too often")

    def _send(self, method: str, url: httpx.URL, headers: dict[str, str], content: Any) -> httpx.Response:
        if self._authorization and self._is_home(url):  # nobody else may see it
            headers["Authorization"] = self._authorization
        try:
            return self._client.send(
                self._client.build_request(method, url, headers=headers, content=content), stream=True
            )
        except httpx.ConnectTimeout:
            raise Unreachable(f"no connection to {url.host}: timed out") from None
        except httpx.TimeoutException:
            raise Transient(f"no answer from {url.host}") from None
        except httpx.ConnectError as error:
            if any(sign in str(error) for sign in _NOT_TLS):
                raise FetchFailed(
                    f'{method.capitalize()} "{url}": http: server gave HTTP response to HTTPS client '
                    "(insecure allows that)"
                ) from None
            if "CERTIFICATE_VERIFY_FAILED" in str(error):
                raise FetchFailed(f'{method.capitalize()} "{url}": certificate not trusted: {error}') from None
            raise Unreachable(f"no connection to {url.host}: {error}") from None
        except httpx.HTTPError as error:
            raise Transient(f"connection to {url.host} was cut: {error}") from None

    def _is_home(self, url: httpx.URL) -> bool:
        home = httpx.URL(self._base)
        return (url.scheme, url.host, url.port) == (home.scheme, home.host, home.port)

    def _answer(self, challenge: str) -> str:
        """The Authorization that a challenge asks for."""
        scheme, _, rest = challenge.partition(" ")
        asked = dict(_PARAMETER.findall(rest))
        login = credentials.basic(self._name.host)
        if scheme.lower() == "basic" and login:
            return login
        if scheme.lower() == "bearer" and "realm" in asked:
            return f"Bearer {self._ask_token(asked, login)}"
        raise _denied(self._name.host)

    def _ask_token(self, asked: dict[str, str], login: str | None) -> str:
        shown = login and (self._insecure or asked["realm"].startswith("https://"))
        query = [("service", asked.get("service", ""))]
        query += [("scope", scope) for scope in asked.get("scope", "").split()]
        try:
            response = self._client.get(
                asked["realm"],
                params=[pair for pair in query if pair[1]],
                headers={"Authorization": login} if login and shown else {},
            )
            if response.status_code == 404:  # which is no word about the model
                raise FetchFailed(f"no token from {asked['realm']}: there is nothing")
            _expect(response, 200)
            answer = response.json()
            token = answer.get("token") or answer.get("access_token")
        except (httpx.HTTPError, httpx.InvalidURL, ValueError, AttributeError) as error:
            raise Transient(f"no token from {asked['realm']}: {error}") from None
        if not isinstance(token, str) or not token.isprintable():
            raise FetchFailed(f"no token from {asked['realm']}: its answer has none")
        return token


def _denied(host: str) -> FetchFailed:
    return FetchFailed(f"unauthorized: access denied by {host}; what `docker login {host}` has saved is used")


def _expect(response: httpx.Response, status: int) -> None:
    if response.status_code == status:
        return
    if response.status_code == 404:
        raise ModelNotFound("file does not exist")
    if response.status_code in (401, 403):
        raise _denied(response.url.netloc.decode("ascii"))
    message = f"{response.url.host} answered {response.status_code} {response.reason_phrase}"
    if response.status_code in _TRANSIENT:
        after = response.headers.get("retry-after", "")
        raise Transient(message, float(after) if after.isdigit() else None)
    with contextlib.suppress(httpx.HTTPError):
        message += f": {response.read()[:200].decode(errors='replace').strip()}".replace("\n", " ").rstrip(": ")
    raise FetchFailed(message)
