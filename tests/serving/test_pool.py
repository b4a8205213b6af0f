"""Who is in memory, with real models of a few thousand weights."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import pytest

from tests.models import tiny
from unitvec.checkpoint import gguf
from unitvec.errors import ModelNotFound, Overloaded, UnitvecError
from unitvec.serving.model import LoadedModel, weight_bytes
from unitvec.serving.pool import Pool
from unitvec.store.model import StoredModel
from unitvec.store.name import Name

A, B, C = map(Name.parse, "abc")


class Shelf:
    """Three models in files, and what a pool does with them."""

    def __init__(self, folder: Path) -> None:
        self.paths = {name: tiny.bert(seed).write(folder / name.model) for seed, name in enumerate((A, B, C))}
        self.cache = folder / "cache"
        self.loads: list[Name] = []
        self.unloads = 0
        self.needed: int | None = None  # what each is said to need; else what its weights do

    def find(self, name: Name) -> StoredModel:
        path = self.paths.get(name)
        if path is None:
            raise ModelNotFound(f"model '{name.short}' not found")
        size, opened = path.stat().st_size, partial(gguf.read, path)
        return StoredModel(name, str(path), size, datetime.now(UTC), str(path), opened)

    def prepare(self, stored: StoredModel) -> tuple[int, Callable[[], LoadedModel]]:
        checkpoint = stored.open()

        def load() -> LoadedModel:
            self.loads.append(stored.name)
            return LoadedModel(checkpoint, threads=1, workers=1, cache_dir=self.cache)

        return self.needed or weight_bytes(checkpoint, threads=1, workers=1, cache_dir=self.cache), load

    def unloaded(self, _: LoadedModel) -> None:
        self.unloads += 1

    def pool(self, *, max_models: int = 9, max_bytes: float = 1e9, max_waiting: int = 9) -> Pool:
        limits = {"max_models": max_models, "max_bytes": max_bytes, "max_waiting": max_waiting}
        return Pool(self.find, self.prepare, self.unloaded, keep_alive=60, **limits)  # type: ignore[arg-type]


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    return Shelf(tmp_path)


def run(test: Coroutine[None, None, None]) -> None:
    asyncio.run(asyncio.wait_for(test, 60))


async def touch(pool: Pool, name: Name) -> None:
    async with pool.use(name, None):
        pass


@asynccontextmanager
async def waiting(pool: Pool, name: Name) -> AsyncIterator[asyncio.Task[None]]:
    """A request that cannot be answered yet; it is cancelled if it still is not in the end."""
    task = asyncio.ensure_future(touch(pool, name))
    await until(lambda: (resident := pool.resident(name)) is not None and resident.queued)
    await asyncio.sleep(0.05)
    assert not task.done()
    yield task
    task.cancel()


async def until(happened: Callable[[], bool]) -> None:
    while not happened():  # noqa: ASYNC110  # nobody tells
        await asyncio.sleep(0.01)


def names(pool: Pool) -> list[str]:
    return sorted(resident.name.model for resident in pool.residents())


def test_one_load_for_many(shelf: Shelf) -> None:
    async def test() -> None:
        pool = shelf.pool()
        await asyncio.gather(*(touch(pool, A) for _ in range(5)))
        assert shelf.loads == [A]
        with pytest.raises(ModelNotFound):
            await touch(pool, Name.parse("nope"))

    run(test())


def test_the_least_recently_used_goes_first(shelf: Shelf) -> None:
    async def test() -> None:
        pool = shelf.pool(max_models=2)
        for name in (A, B, A, C):
            await touch(pool, name)
        assert names(pool) == ["a", "c"]

    run(test())


def test_who_finds_all_busy_waits_and_goes_before_those_who_come_later(shelf: Shelf) -> None:
    async def test() -> None:
        pool = shelf.pool(max_models=1)
        async with AsyncExitStack() as first:
            await first.enter_async_context(pool.use(A, None))
            async with waiting(pool, B) as second, waiting(pool, A) as third:
                assert names(pool) == ["a"]
                await first.aclose()
                await asyncio.gather(second, third)
        assert shelf.loads == [A, B, A]
        assert shelf.unloads == 2

    run(test())


def test_room_is_made_in_bytes(shelf: Shelf) -> None:
    shelf.needed = 50 << 20

    async def test() -> None:
        pool = shelf.pool(max_bytes=50 << 20)
        async with pool.use(A, None), waiting(pool, B):
            assert names(pool) == ["a"]
        await touch(pool, C)
        assert names(pool) == ["c"]

    run(test())


def test_who_leaves_while_he_waits_is_forgotten(shelf: Shelf) -> None:
    async def test() -> None:
        pool = shelf.pool(max_models=1)
        async with pool.use(A, None):
            async with waiting(pool, B):
                pass
            await asyncio.sleep(0.05)
            assert pool.resident(B) is None
            async with waiting(pool, C) as third:
                pass
        with pytest.raises(asyncio.CancelledError):
            await third
        await touch(pool, B)
        assert shelf.loads == [A, B]

    run(test())


def test_so_many_may_wait_and_no_more(shelf: Shelf) -> None:
    async def test() -> None:
        pool = shelf.pool(max_models=1, max_waiting=1)
        async with pool.use(A, None), waiting(pool, B):
            for name in (B, C):
                with pytest.raises(Overloaded, match="maximum pending requests exceeded"):
                    await touch(pool, name)

    run(test())


def test_pinned_models_are_never_put_out(shelf: Shelf) -> None:
    async def test() -> None:
        pool = shelf.pool(max_models=2, max_waiting=1)
        await asyncio.gather(pool.pin(A), pool.pin(B))
        with pytest.raises(Overloaded, match=r"no room for model 'c:latest': it needs \d+ KB, and .* kept: 2 of"):
            await touch(pool, C)
        assert names(pool) == ["a", "b"]

    run(test())


def test_what_can_never_fit_is_refused_and_puts_nobody_out(shelf: Shelf, tmp_path: Path) -> None:
    shelf.paths[C] = tiny.gemma3().write(tmp_path / "big", "Q8_0")

    async def test() -> None:
        limit = shelf.paths[C].stat().st_size * 2  # its file would fit
        pool = shelf.pool(max_bytes=limit)
        await touch(pool, A)
        with pytest.raises(UnitvecError, match=r"model 'c:latest' needs \d+ KB of memory, and there are \d+ KB"):
            await touch(pool, C)
        assert names(pool) == ["a"]

    run(test())


@pytest.mark.parametrize("kind", ["F32", "F16", "Q8_0"])
def test_what_a_model_takes_is_known_before_it_is_loaded(kind: str, shelf: Shelf, tmp_path: Path) -> None:
    shelf.paths[A] = tiny.gemma3().write(tmp_path / "model", kind)
    needed, load = shelf.prepare(shelf.find(A))
    taken = load().lanes.resident_bytes
    assert taken <= 2 * needed  # onnxruntime may keep a copy of its own
    assert taken >= needed


def test_a_stopped_model_counts_until_it_has_answered(shelf: Shelf) -> None:
    async def test() -> None:
        pool = shelf.pool(max_models=1)
        async with AsyncExitStack() as first:
            resident = await first.enter_async_context(pool.use(A, None))
            assert pool.stop(A)
            assert not pool.stop(A)
            assert pool.residents() == [resident]
            assert resident.expires_in == 0
            async with waiting(pool, B) as second:
                assert names(pool) == ["a"]
                await first.aclose()
                await second
        assert names(pool) == ["b"]
        assert shelf.unloads == 1

    run(test())


def test_a_new_version_of_a_pinned_model_is_loaded_at_once(shelf: Shelf, tmp_path: Path) -> None:
    async def test() -> None:
        pool = shelf.pool()
        await pool.pin(A)
        async with pool.use(A, None) as old:
            shelf.paths[A] = tiny.bert(7).write(tmp_path / "new")
            pool.changed(A, there=True)
            await until(lambda: len(pool.residents()) == 2)
            assert pool.resident(A) is not old
        assert [resident.stored.digest for resident in pool.residents()] == [str(tmp_path / "new")]
        pool.changed(B, there=True)
        del shelf.paths[A]
        pool.changed(A, there=False)
        assert pool.residents() == []
        await asyncio.sleep(0.05)
        assert shelf.loads == [A, A]

    run(test())


def test_a_new_version_that_cannot_be_run_is_told_to_who_asks(shelf: Shelf) -> None:
    async def test() -> None:
        pool = shelf.pool()
        await pool.pin(A)
        shelf.paths[A].write_bytes(b"GGUF")
        pool.changed(A, there=True)
        for _ in range(2):
            with pytest.raises(UnitvecError, match="damaged"):
                await touch(pool, A)

    run(test())
