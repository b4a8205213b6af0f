"""Pulling from a real registry, through a proxy that misbehaves."""

import base64
import contextlib
import json
import os
import shutil
import ssl
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from real_registry import LAYERS, PARAMS, WEIGHTS, Proxy, proxy_to, publish, running_registry, sha256

from unitvec.errors import FetchFailed, ModelNotFound, NoSpace
from unitvec.store import files
from unitvec.store.model import StoredModel
from unitvec.store.name import Name
from unitvec.store.ollama import OllamaStore
from unitvec.store.progress import Progress, Report, silent
from unitvec.store.pull import pull as pull_model
from unitvec.store.push import push
from unitvec.store.stores import Stores

TOTAL = len(WEIGHTS) + len(PARAMS) + 2
DIGEST = sha256(WEIGHTS)


@pytest.fixture
def store(tmp_path: Path) -> OllamaStore:
    return OllamaStore(tmp_path / "ollama")


def pull(store: OllamaStore, proxy: Proxy, report: Report = silent, patience: float = 30.0) -> StoredModel:
    name = Name.parse(f"http://{proxy.host}/library/m")
    return pull_model(name, store, report, insecure=True, patience=patience)


def assert_whole(store: OllamaStore) -> None:
    """The blobs are what they should be, and nothing is left over."""
    assert store.blobs.path(DIGEST).read_bytes() == WEIGHTS
    names = {path.name for path in store.blobs.root.iterdir()}
    assert names == {sha256(data).replace(":", "-") for data in (*LAYERS.values(), b"{}")}


def test_brings_a_model_in_ollamas_layout_byte_for_byte(store: OllamaStore, proxy: Proxy, registry: str) -> None:
    told: list[Progress] = []
    model = pull(store, proxy, told.append)
    assert_whole(store)
    manifest = publish(registry, "library/m", "latest", LAYERS)
    assert (store.root / "manifests" / proxy.host / "library/m/latest").read_bytes() == manifest
    assert model.name.short == f"{proxy.host}/library/m:latest"
    assert model.digest == sha256(manifest).removeprefix("sha256:")
    assert (model.size, model.parameters) == (TOTAL, {"num_ctx": 256})
    assert model.weights == str(store.blobs.path(DIGEST))

    statuses = list(dict.fromkeys(step.status for step in told))
    assert statuses[0] == "pulling manifest"
    assert statuses[1] == f"pulling {DIGEST[7:19]}"
    assert statuses[-3:] == ["verifying sha256 digest", "writing manifest", "success"]
    counts = [step.completed or 0 for step in told if step.digest == DIGEST]
    assert counts == sorted(counts)
    assert counts[-1] == len(WEIGHTS)
    assert proxy.blob_bytes == TOTAL
    ranges = {asked.range for asked in proxy.blob_requests() if DIGEST in asked.path}
    assert len(ranges) == 3


def test_what_is_here_is_not_fetched_again(store: OllamaStore, proxy: Proxy) -> None:
    first = pull(store, proxy)
    proxy.asked.clear()
    assert pull(store, proxy).digest == first.digest
    assert proxy.blob_requests() == []


def test_a_damaged_blob_is_fetched_again(store: OllamaStore, proxy: Proxy) -> None:
    pull(store, proxy)
    path = store.blobs.path(DIGEST)
    path.write_bytes(bytes(len(WEIGHTS)))  # of the right size
    proxy.asked.clear()
    pull(store, proxy)
    assert_whole(store)
    assert proxy.blob_bytes == len(WEIGHTS)


def test_only_what_is_new_or_repaired_is_a_change(tmp_path: Path, proxy: Proxy) -> None:
    stores, changed = Stores(tmp_path / "data", tmp_path / "ollama"), []
    stores.on_change = lambda _, model: changed.append(model is not None)
    name = Name.parse(f"http://{proxy.host}/library/m")
    for _ in range(2):
        stores.pull(name, insecure=True)
        assert changed == [True]
    stores.layouts[0].blobs.path(DIGEST).write_bytes(bytes(len(WEIGHTS)))
    stores.pull(name, insecure=True)
    assert changed == [True, True]
    stores.copy(name, Name.parse("other"))
    stores.copy(name, Name.parse("other"))
    stores.remove(name)
    assert changed == [True, True, True, False]


def test_removing_a_model_keeps_blobs_that_are_pulled_for_another(
    store: OllamaStore, proxy: Proxy, registry: str
) -> None:
    pull(store, proxy)
    others = {"application/vnd.ollama.image.model": WEIGHTS, "application/vnd.ollama.image.params": b'{"num_ctx":7}'}
    publish(registry, "library/other", "latest", others)
    proxy.asked.clear()
    removed: list[bool] = []

    def remove(progress: Progress) -> None:
        if progress.digest == sha256(others["application/vnd.ollama.image.params"]) and not removed:
            removed.append(OllamaStore(store.root).remove(Name.parse(f"{proxy.host}/library/m")))

    pull_model(Name.parse(f"http://{proxy.host}/library/other"), store, remove, insecure=True)
    assert removed == [True]
    assert store.blobs.path(DIGEST).read_bytes() == WEIGHTS
    assert not store.blobs.path(sha256(PARAMS)).exists()
    assert not [asked for asked in proxy.blob_requests() if DIGEST in asked.path]
    assert [path.name for path in store.root.iterdir() if "claims" in path.name] == []


def test_a_killed_pull_keeps_nothing_from_being_removed(store: OllamaStore, proxy: Proxy) -> None:
    pull(store, proxy)
    claims = store.root / ".unitvec-claims"
    claims.mkdir()
    (claims / "left").write_text(DIGEST)
    store.remove(Name.parse(f"{proxy.host}/library/m"))
    assert list(store.blobs.root.iterdir()) == list(claims.iterdir()) == []


def test_nothing_is_left_of_old_pulls(store: OllamaStore, proxy: Proxy) -> None:
    store.blobs.root.mkdir(parents=True)
    finished, old, fresh = (store.blobs.partial("sha256:" + digit * 64) for digit in "123")
    for path in (old, fresh):
        path.write_bytes(b"some of it")
    for path in (finished, old, fresh):
        path.with_name(f"{path.name}-0").write_text("{}")
    os.utime(old, (0, 0))
    pull(store, proxy)
    names = {path.name for path in store.blobs.root.iterdir() if "partial" in path.name}
    assert names == {fresh.name, f"{fresh.name}-0"}


@pytest.mark.parametrize("fault", ["cut", "stall", "busy", "broken"])
def test_goes_on_after(fault: str, store: OllamaStore, proxy: Proxy) -> None:
    setattr(proxy.faults, fault, 3)
    pull(store, proxy, patience=0.5)
    assert_whole(store)
    assert proxy.blob_bytes <= TOTAL + (1 << 20)  # what was in flight is all that came twice


def test_a_registry_that_stays_busy_is_given_up(store: OllamaStore, proxy: Proxy) -> None:
    proxy.faults.busy = 1000
    with pytest.raises(FetchFailed, match="429"):
        pull(store, proxy)
    assert store.find(Name.parse(f"{proxy.host}/library/m")) is None


def test_wrong_bytes_never_get_a_name(store: OllamaStore, proxy: Proxy) -> None:
    proxy.faults.wrong = 1
    with pytest.raises(FetchFailed, match="digest mismatch, file must be downloaded again: want sha256:"):
        pull(store, proxy)
    assert not store.blobs.path(DIGEST).exists()
    assert store.list() == []
    pull(store, proxy)
    assert_whole(store)


def test_wrong_bytes_that_lay_here_are_fetched_again(store: OllamaStore, proxy: Proxy) -> None:
    leave_midway(store, proxy)
    with store.blobs.partial(DIGEST).open("r+b") as file:
        file.write(b"not what came")
    pull(store, proxy)
    assert_whole(store)


def test_a_server_without_ranges(store: OllamaStore, proxy: Proxy) -> None:
    proxy.faults.ranges = False
    proxy.faults.cut = 1
    pull(store, proxy)
    assert_whole(store)


def test_blobs_on_another_host_that_never_sees_the_token(store: OllamaStore, proxy: Proxy, registry: str) -> None:
    proxy.faults.token = "open-sesame"
    with proxy_to(registry) as other:
        proxy.faults.redirect = other.host
        other.faults.expire = 1
        pull(store, proxy)
        assert_whole(store)
        assert {asked.authorization for asked in other.asked} == {None}
        assert other.blob_bytes == TOTAL
    assert {asked.authorization for asked in proxy.blob_requests()} == {"Bearer open-sesame"}


def test_a_token_is_asked_for_where_the_registry_says(store: OllamaStore, proxy: Proxy) -> None:
    proxy.faults.token = "open-sesame"
    pull(store, proxy)
    assert_whole(store)
    asked = next(asked for asked in proxy.asked if asked.path.startswith("/token"))
    assert "service=test" in asked.path
    assert "scope=repository%3Alibrary%2Fm%3Apull" in asked.path


def test_a_busy_token_server_is_asked_again(store: OllamaStore, proxy: Proxy) -> None:
    proxy.faults.token = "open-sesame"
    proxy.faults.token_busy = 2
    pull(store, proxy)
    assert_whole(store)


USER = "someone:$2b$05$9VS2YqdKbKsNKsB3fPUuPeVM1Y1hHdOh4qKyIilfFCZs14RY2QBh6"


def test_a_registry_with_passwords(store: OllamaStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if shutil.which("docker-registry") is None:
        pytest.skip("docker-registry is missing")
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    login = base64.b64encode(b"someone:secret").decode()
    with running_registry(tmp_path, users=USER) as host:
        publish(host, "library/m", "latest", LAYERS, login=("someone", "secret"))
        name = Name.parse(f"{host}/library/m")
        with pytest.raises(FetchFailed, match=rf"unauthorized: access denied by {host}; what `docker login {host}`"):
            pull_model(name, store, silent, insecure=True)
        (tmp_path / "config.json").write_text(json.dumps({"auths": {"elsewhere": {}, host: {"auth": login}}}))
        pull_model(name, store, silent, insecure=True)
        assert_whole(store)
        wrong = base64.b64encode(b"someone:wrong").decode()
        (tmp_path / "config.json").write_text(json.dumps({"auths": {f"https://{host}/v1/": {"auth": wrong}}}))
        with pytest.raises(FetchFailed, match="unauthorized: access denied"):
            pull_model(name, store, silent, insecure=True)


@pytest.fixture
def pushed(tmp_path: Path, proxy: Proxy) -> tuple[Stores, Name]:
    """A model that is to be sent to the registry behind the proxy."""
    stores = Stores(tmp_path / "data", tmp_path / "ollama")
    stores.pull(Name.parse(f"http://{proxy.host}/library/m"), insecure=True)
    name = Name.parse(f"http://{proxy.host}/pushed/{tmp_path.name.replace('_', '').lower()}")
    stores.copy(Name.parse(f"{proxy.host}/library/m"), name)
    return stores, name


def test_a_push_goes_on_after_faults(pushed: tuple[Stores, Name], proxy: Proxy, store: OllamaStore) -> None:
    stores, name = pushed
    proxy.faults.push_broken = 1
    proxy.asked.clear()

    def hurt(progress: Progress) -> None:
        if progress.status == "pushing manifest":
            proxy.faults.push_broken = 2

    push(name, stores, hurt, insecure=True)
    manifests = [asked for asked in proxy.asked if asked.method == "PUT" and "/manifests/" in asked.path]
    assert len(manifests) == 3
    pull_model(name, store, silent, insecure=True)
    assert_whole(store)


def test_a_registry_that_takes_no_uploads(pushed: tuple[Stores, Name], proxy: Proxy) -> None:
    proxy.faults.homeless = 9
    with pytest.raises(FetchFailed, match=r"takes no blobs: it does not say where to send them"):
        push(pushed[1], pushed[0], silent, insecure=True)


def leave_midway(store: OllamaStore, proxy: Proxy, share: float = 0.5) -> int:
    """Stops a pull in the middle; how many bytes had come."""

    class Left(Exception):
        pass

    def leave(progress: Progress) -> None:
        if progress.digest == DIGEST and (progress.completed or 0) > share * len(WEIGHTS):
            raise Left

    proxy.faults.rate = 20e6
    with pytest.raises(Left):
        pull(store, proxy, leave)
    proxy.faults.rate = None
    came = proxy.blob_bytes
    proxy.asked.clear()
    return came


def test_a_stopped_pull_goes_on_where_it_was(store: OllamaStore, proxy: Proxy) -> None:
    came = leave_midway(store, proxy)
    assert store.list() == []
    assert not store.blobs.path(DIGEST).exists()
    told: list[Progress] = []
    pull(store, proxy, told.append)
    assert_whole(store)
    counts = [step.completed for step in told if step.digest == DIGEST]
    assert counts[0] is not None
    assert counts[0] > 0.4 * len(WEIGHTS)  # no jump that would look like speed
    assert proxy.blob_bytes <= TOTAL - 0.5 * len(WEIGHTS) + (1 << 20)
    assert came + proxy.blob_bytes <= TOTAL + (4 << 20)


def test_goes_on_with_what_ollama_left(store: OllamaStore, proxy: Proxy) -> None:
    """Its parts are larger, and kept in the same form."""
    half = len(WEIGHTS) // 2
    partial = store.blobs.partial(DIGEST)
    partial.parent.mkdir(parents=True)
    partial.write_bytes(WEIGHTS[:half] + bytes(len(WEIGHTS) - half))
    state = {"N": 0, "Offset": 0, "Size": len(WEIGHTS), "Completed": half}
    partial.with_name(f"{partial.name}-0").write_text(json.dumps(state) + "\n")
    pull(store, proxy)
    assert_whole(store)
    assert proxy.blob_bytes == TOTAL - half


@pytest.mark.parametrize("state", ["", "{}", '{"N": 0, "Offset": 0, "Size": 5, "Completed": 9}', "[1]"])
def test_a_damaged_note_of_what_came_means_the_start(state: str, store: OllamaStore, proxy: Proxy) -> None:
    partial = store.blobs.partial(DIGEST)
    partial.parent.mkdir(parents=True)
    partial.write_bytes(bytes(77))
    partial.with_name(f"{partial.name}-0").write_text(state)
    pull(store, proxy)
    assert_whole(store)


def test_a_missing_model(store: OllamaStore, proxy: Proxy) -> None:
    with pytest.raises(ModelNotFound, match=r"^pull model manifest: file does not exist$"):
        pull_model(Name.parse(f"http://{proxy.host}/library/nope"), store, silent, insecure=True)
    assert not store.root.exists()


def test_plain_http_must_be_allowed(store: OllamaStore, proxy: Proxy) -> None:
    with pytest.raises(FetchFailed, match=r"^pull model manifest: .*server gave HTTP response to HTTPS client"):
        pull_model(Name.parse(f"http://{proxy.host}/library/m"), store, silent)


def test_insecure_needs_no_scheme(store: OllamaStore, proxy: Proxy) -> None:
    pull_model(Name.parse(f"{proxy.host}/library/m"), store, silent, insecure=True)
    assert_whole(store)


@pytest.fixture
def secure(tmp_path: Path, registry: str) -> Iterator[tuple[Proxy, Path]]:
    """A registry behind TLS, and the certificate of the private authority that vouches for it."""
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    names = ["-subj", "/CN=private", "-addext", "subjectAltName=IP:127.0.0.1"]
    request = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", *names]
    subprocess.run([*request, "-keyout", key, "-out", certificate], check=True, capture_output=True)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate, key)
    with proxy_to(registry, tls) as made:
        yield made, certificate


def test_a_private_authority(store: OllamaStore, secure: tuple[Proxy, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    proxy, certificate = secure
    name = Name.parse(f"{proxy.host}/library/m")
    with pytest.raises(FetchFailed, match=r"^pull model manifest: .*certificate not trusted"):
        pull_model(name, store, silent)
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    pull_model(name, store, silent)
    assert_whole(store)


def test_insecure_takes_any_certificate(store: OllamaStore, secure: tuple[Proxy, Path]) -> None:
    pull_model(Name.parse(f"{secure[0].host}/library/m"), store, silent, insecure=True)
    assert_whole(store)


def test_the_proxy_of_the_environment(store: OllamaStore, proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("http_proxy", "HTTP_PROXY"):
        monkeypatch.setenv(variable, f"http://{proxy.host}")
    pull_model(Name.parse("http://models.invalid/library/m"), store, silent, insecure=True)
    assert_whole(store)
    assert set(proxy.hosts) == {"models.invalid"}


def test_nobody_there(store: OllamaStore) -> None:
    with pytest.raises(FetchFailed, match=r"pull model manifest: no connection to 127\.0\.0\.1"):
        pull_model(Name.parse("http://127.0.0.1:9/library/m"), store, silent, insecure=True)


def test_too_little_space_is_told_before_anything_comes(
    store: OllamaStore, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = files.shutil.disk_usage(store.root.parent)
    monkeypatch.setattr(files.shutil, "disk_usage", lambda _: usage._replace(free=1_000_000))
    with pytest.raises(NoSpace, match=r"not enough disk space in .*: 42 MB needed, 1 MB free"):
        pull(store, proxy)
    assert proxy.blob_requests() == []


def test_two_pulls_at_once_share_the_work(tmp_path: Path, proxy: Proxy) -> None:
    proxy.faults.rate = 20e6
    stores = Stores(tmp_path / "data", tmp_path / "ollama")
    changed: list[Name] = []
    stores.on_change = lambda name, _: changed.append(name)
    name = Name.parse(f"http://{proxy.host}/library/m")
    told: list[list[Progress]] = [[], [], []]
    threads = [threading.Thread(target=lambda to=to: stores.pull(name, to.append, insecure=True)) for to in told]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert_whole(stores.layouts[0])
    assert proxy.blob_bytes == TOTAL
    assert all(steps[-1].status == "success" for steps in told)
    assert changed == [name]


def test_pulls_that_ask_in_other_ways_do_not_share_their_errors(tmp_path: Path, proxy: Proxy) -> None:
    proxy.faults.rate = 40e6
    stores = Stores(tmp_path / "data", tmp_path / "ollama")
    name, began, errors = Name.parse(f"http://{proxy.host}/library/m"), threading.Event(), []

    def strictly() -> None:
        began.wait()
        try:
            stores.pull(name)
        except FetchFailed as error:
            errors.append(error.message)

    def by_the_same_source() -> None:
        began.wait()
        stores.pull(name, source="registry", insecure=True)

    threads = [threading.Thread(target=target) for target in (strictly, by_the_same_source)]
    for thread in threads:
        thread.start()
    stores.pull(name, lambda step: began.set() if step.completed else None, insecure=True)
    for thread in threads:
        thread.join()
    assert_whole(stores.layouts[0])
    assert len(errors) == 1
    assert "insecure" in errors[0]
    assert len([asked for asked in proxy.asked if "/manifests/" in asked.path]) == 1


def test_two_stores_pull_the_same_blobs_once(store: OllamaStore, proxy: Proxy) -> None:
    """As two processes would: they share nothing but the folder."""
    proxy.faults.rate = 20e6
    stores = [store, OllamaStore(store.root)]
    threads = [threading.Thread(target=pull, args=(each, proxy)) for each in stores]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert_whole(store)
    assert proxy.blob_bytes == TOTAL


def test_a_new_version_replaces_the_old_and_its_blobs(store: OllamaStore, proxy: Proxy, registry: str) -> None:
    versions = [{"application/vnd.ollama.image.model": data} for data in (b"first" * 1000, b"second" * 1000)]
    publish(registry, "library/versions", "latest", versions[0])
    name = Name.parse(f"http://{proxy.host}/library/versions")
    pull_model(name, store, silent, insecure=True)
    publish(registry, "library/versions", "latest", versions[1])
    pull_model(name, store, silent, insecure=True)
    kept = {path.name for path in store.blobs.root.iterdir()}
    assert kept == {sha256(data).replace(":", "-") for data in (b"second" * 1000, b"{}")}


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """60 MiB, where this may be mounted."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=60m", "none", str(folder)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("mounting a small disk needs to be root")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


def test_a_disk_that_fills_up_midway(small_disk: Path, proxy: Proxy) -> None:
    store, filler = OllamaStore(small_disk / "ollama"), small_disk / "filler"

    def fill(progress: Progress) -> None:
        if progress.digest == DIGEST and (progress.completed or 0) > len(WEIGHTS) // 4 and not filler.exists():
            with contextlib.suppress(OSError):
                filler.write_bytes(bytes(60 << 20))

    proxy.faults.rate = 10e6
    with pytest.raises(NoSpace, match="no space left on the disk of"):
        pull(store, proxy, fill)
    assert store.list() == []
    filler.unlink()
    proxy.faults.rate = None
    proxy.asked.clear()
    pull(store, proxy)
    assert_whole(store)
    assert proxy.blob_bytes < 0.85 * TOTAL
