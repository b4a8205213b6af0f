"""Models in memory: loaded on first use, kept for their keep-alive, the least recently used gone first."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

from unitvec import human
from unitvec.errors import Overloaded, UnitvecError
from unitvec.serving.model import LoadedModel
from unitvec.serving.runner import BUSY
from unitvec.store.model import StoredModel
from unitvec.store.name import Name

Find = Callable[[Name], StoredModel]
Prepare = Callable[[StoredModel], tuple[int, Callable[[], LoadedModel]]]

log = logging.getLogger("unitvec")


@dataclass(eq=False)
class Resident:
    """A model's place in memory.

    Attributes:
        loading: the task that finds and loads it; done once it is ready.
        users: requests that use it or wait for it; with any it is never unloaded.
        used: when the last of them left, on the loop's clock.
        queued: it waits for others to make room.
        gone: it has been unloaded.
        keep_alive: seconds that it stays after that; inf for ever.
    """

    name: Name
    keep_alive: float
    loading: asyncio.Task[tuple[StoredModel, LoadedModel]] = field(init=False)
    users: int = 0
    used: float = 0.0
    queued: bool = False
    gone: bool = False
    timer: asyncio.TimerHandle | None = field(default=None, repr=False)

    @property
    def ready(self) -> bool:
        """It is in memory."""
        return self.loading.done() and not self.loading.cancelled() and self.loading.exception() is None

    @property
    def stored(self) -> StoredModel:
        """Where it came from; only when ready."""
        return self.loading.result()[0]

    @property
    def model(self) -> LoadedModel:
        """The model itself; only when ready."""
        return self.loading.result()[1]

    @property
    def expires_in(self) -> float:
        """Seconds until it goes if nobody asks for it again; inf for never."""
        if self.users or self.timer is None:
            return self.keep_alive
        return self.timer.when() - asyncio.get_running_loop().time()


class Pool:
    """Who is in memory. Lives on one event loop; finding and loading run in threads.

    Args:
        find: a stored model by name; raises ModelNotFound.
        prepare: reads what a model is; gives the bytes of memory that it will take, and what loads it.
        unloaded: told of each model that has left.
        keep_alive: seconds that a model stays when a request does not say; inf for ever.
        max_models: models in memory at a time.
        max_bytes: memory for all of them together.
        max_waiting: requests that may wait for models to be loaded.
    """

    def __init__(
        self,
        find: Find,
        prepare: Prepare,
        unloaded: Callable[[LoadedModel], None],
        *,
        keep_alive: float,
        max_models: int,
        max_bytes: float,
        max_waiting: int,
    ) -> None:
        self._find = find
        self._prepare = prepare
        self._unloaded = unloaded
        self._keep_alive = keep_alive
        self._max_models = max_models
        self._max_bytes = max_bytes
        self._max_waiting = max_waiting
        self._residents: dict[Name, Resident] = {}
        self._leaving: set[Resident] = set()  # still used, and not to be used anew
        self._pinned: set[Name] = set()
        self._room = asyncio.Lock()  # one model at a time makes room for itself
        self._left = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()

    def residents(self) -> list[Resident]:
        """Those that are loaded, first the one that stays longest, as Ollama lists them."""
        everyone = (*self._residents.values(), *self._leaving)
        return sorted((r for r in everyone if r.ready), key=lambda r: -r.expires_in)

    def names(self) -> list[str]:
        """Those that are loaded and those that are being loaded."""
        return [name.short for name in self._residents]

    def resident(self, name: Name) -> Resident | None:
        """A model's place in memory, if it has one that can be used."""
        return self._residents.get(name)

    async def pin(self, name: Name) -> None:
        """Load a model, to stay until it is told otherwise."""
        self._pinned.add(name)
        async with self.use(name, None):
            pass

    @contextlib.asynccontextmanager
    async def use(self, name: Name, keep_alive: float | None) -> AsyncIterator[Resident]:
        """A model, in memory for as long as the context lasts and ``keep_alive`` seconds after it.

        Raises:
            ModelNotFound: there is none of that name.
            InvalidCheckpoint: its files cannot be run.
            UnitvecError: it takes more memory than there is.
            Overloaded: there is no room, and all that have it are to be kept; or too many wait for models already.
        """
        resident = self._residents.get(name)
        is_ready = resident is not None and resident.ready
        if not is_ready and name not in self._pinned and self._waiting() >= self._max_waiting:
            raise Overloaded(BUSY)
        if resident is None:
            stays = math.inf if name in self._pinned else self._keep_alive
            resident = Resident(name, stays)
            resident.loading = asyncio.ensure_future(self._admit(resident))
            resident.loading.add_done_callback(_look_at)
            self._residents[name] = resident
        if resident.timer:
            resident.timer.cancel()
            resident.timer = None
        resident.users += 1
        if keep_alive is not None:
            resident.keep_alive = keep_alive
        try:
            # A caller who leaves does not undo the load: others may wait for it.
            await asyncio.shield(resident.loading)
            yield resident
        finally:
            resident.users -= 1
            if not resident.users:
                self._idle(resident)

    def stop(self, name: Name) -> bool:
        """Unload a model once nobody uses it; False when it is not in memory."""
        resident = self._residents.get(name)
        if resident is None:
            return False
        # Who asks from now on loads it afresh; it goes when those who use it now have left.
        del self._residents[name]
        self._leaving.add(resident)
        resident.keep_alive = 0
        if not resident.users:
            self._idle(resident)
        return True

    def changed(self, name: Name, *, there: bool) -> None:
        """A name stands for another model now, or for none: unload what it stood for; load anew what is pinned."""
        self.stop(name)
        if there and name in self._pinned:
            task = asyncio.ensure_future(self._renew(name))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _renew(self, name: Name) -> None:
        try:
            await self.pin(name)
        except UnitvecError as error:  # who asks for it will be told as well
            log.warning("cannot load a new version", extra={"fields": {"model": name.short, "error": error.message}})

    def _waiting(self) -> int:
        return sum(r.users for r in (*self._residents.values(), *self._leaving) if not r.ready)

    def _idle(self, resident: Resident) -> None:
        loop = asyncio.get_running_loop()
        resident.used = loop.time()
        if resident.timer:
            resident.timer.cancel()
            resident.timer = None
        if not resident.loading.done():
            if resident.queued:  # nobody waits for it any more, so nobody need make room
                self._evict(resident)
                resident.loading.cancel()
            else:  # its only caller left; it may yet be wanted
                resident.loading.add_done_callback(lambda _: None if resident.users else self._idle(resident))
        elif not resident.ready or resident.keep_alive <= 0:
            self._evict(resident)
        elif resident.keep_alive < math.inf:
            resident.timer = loop.call_later(resident.keep_alive, self._evict, resident)

    def _evict(self, resident: Resident) -> None:
        if self._residents.get(resident.name) is resident:
            del self._residents[resident.name]
        self._leaving.discard(resident)
        if resident.timer:
            resident.timer.cancel()
        if resident.ready and not resident.gone:
            resident.gone = True
            self._unloaded(resident.model)
        self._left.set()

    async def _admit(self, resident: Resident) -> tuple[StoredModel, LoadedModel]:
        stored = await asyncio.to_thread(self._find, resident.name)
        needed, load = await asyncio.to_thread(self._prepare, stored)
        if needed > self._max_bytes:
            raise UnitvecError(
                f"model {stored.name.short!r} needs {human.size(needed)} of memory, and there are "
                f"{human.size(int(self._max_bytes))} for models (--memory)"
            )
        if not resident.users:
            self._evict(resident)  # at once: who comes now begins anew
            raise Overloaded("nobody waits for it any more")
        resident.queued = True
        async with self._room:
            await self._make_room(stored.name, needed)
            resident.queued = False
            return stored, await asyncio.to_thread(load)

    async def _make_room(self, name: Name, needed: int) -> None:
        """Unloads those least recently used, who is idle first; waits for those in use, which nobody uses anew then."""
        while not self._fits(here := self.residents(), needed):
            staying = [r for r in here if r not in self._leaving]
            if not self._fits(staying, needed):
                free = [r for r in staying if r.name not in self._pinned]
                if not free:
                    taken = sum(r.model.bytes for r in staying)
                    raise Overloaded(
                        f"no room for model {name.short!r}: it needs {human.size(needed)}, and what is in memory is "
                        f"to be kept: {len(staying)} of at most {self._max_models} models, {human.size(taken)} of "
                        f"{human.size(int(self._max_bytes))}"
                    )
                self.stop(min(free, key=lambda r: (r.users > 0, r.used)).name)
            else:
                self._left.clear()
                await self._left.wait()

    def _fits(self, loaded: list[Resident], needed: int) -> bool:
        taken = sum(r.model.bytes for r in loaded)
        return len(loaded) < self._max_models and (taken + needed <= self._max_bytes or not loaded)


def _look_at(loading: asyncio.Task[tuple[StoredModel, LoadedModel]]) -> None:
    """Its users hear of an error; where none are left, nobody need."""
    if not loading.cancelled():
        loading.exception()
