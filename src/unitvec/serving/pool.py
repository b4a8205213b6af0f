"""Models in memory: loaded on first use, kept for their keep-alive, the least recently used gone first."""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

from unitvec.errors import Overloaded, UnitvecError
from unitvec.serving.model import LoadedModel
from unitvec.store.model import StoredModel
from unitvec.store.name import Name

Find = Callable[[Name], StoredModel]
Load = Callable[[StoredModel], LoadedModel]


@dataclass(eq=False)
class Resident:
    """A model's place in memory.

    Attributes:
        loading: the task that finds and loads it; done once it is ready.
        users: requests that use it or wait for it; with any it is never unloaded.
        used: when the last of them left, on the loop's clock.
        gone: it has been unloaded.
        keep_alive: seconds that it stays after that; inf for ever.
    """

    name: Name
    keep_alive: float
    loading: asyncio.Task[tuple[StoredModel, LoadedModel]]
    users: int = 0
    used: float = 0.0
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
        load: reads a model's files and makes it ready.
        unloaded: told of each model that has left.
        keep_alive: seconds that a model stays when a request does not say; inf for ever.
        max_models: models in memory at a time.
        max_bytes: memory for all of them together.
    """

    def __init__(
        self,
        find: Find,
        load: Load,
        unloaded: Callable[[LoadedModel], None],
        *,
        keep_alive: float,
        max_models: int,
        max_bytes: float,
    ) -> None:
        self._find = find
        self._load = load
        self._unloaded = unloaded
        self._keep_alive = keep_alive
        self._max_models = max_models
        self._max_bytes = max_bytes
        self._residents: dict[Name, Resident] = {}
        self._pinned: set[Name] = set()
        self._room = asyncio.Lock()  # one model at a time makes room for itself

    def residents(self) -> list[Resident]:
        """Those that are loaded, first the one that stays longest, as Ollama lists them."""
        return sorted((r for r in self._residents.values() if r.ready), key=lambda r: -r.expires_in)

    def names(self) -> list[str]:
        """Those that are loaded and those that are being loaded."""
        return [name.short for name in self._residents]

    def resident(self, name: Name) -> Resident | None:
        """A model's place in memory, if it has one."""
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
            Overloaded: there is no room, and those that have it are in use.
        """
        resident = self._residents.get(name)
        if resident is None:
            stays = math.inf if name in self._pinned else self._keep_alive
            resident = Resident(name, stays, asyncio.ensure_future(self._admit(name)))
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
        resident.keep_alive = 0
        if not resident.users:
            self._idle(resident)
        return True

    def _idle(self, resident: Resident) -> None:
        loop = asyncio.get_running_loop()
        resident.used = loop.time()
        if resident.timer:
            resident.timer.cancel()
            resident.timer = None
        if not resident.loading.done():  # its only caller left; it may yet be wanted
            resident.loading.add_done_callback(lambda _: None if resident.users else self._idle(resident))
        elif not resident.ready or resident.keep_alive <= 0:
            self._evict(resident)
        elif resident.keep_alive < math.inf:
            resident.timer = loop.call_later(resident.keep_alive, self._evict, resident)

    def _evict(self, resident: Resident) -> None:
        if self._residents.get(resident.name) is resident:
            del self._residents[resident.name]
        if resident.timer:
            resident.timer.cancel()
        if resident.ready and not resident.gone:
            resident.gone = True
            self._unloaded(resident.model)

    async def _admit(self, name: Name) -> tuple[StoredModel, LoadedModel]:
        stored = await asyncio.to_thread(self._find, name)
        async with self._room:
            self._make_room(stored)
            return stored, await asyncio.to_thread(self._load, stored)

    def _make_room(self, stored: StoredModel) -> None:
        needed = stored.size
        if needed > self._max_bytes:
            raise UnitvecError(
                f"model {stored.name.short!r} needs {needed >> 20} MiB of memory, there are "
                f"{int(self._max_bytes) >> 20} MiB for models"
            )
        while True:
            loaded = [r for r in self._residents.values() if r.ready]
            taken = sum(r.model.bytes for r in loaded)
            if len(loaded) < self._max_models and (taken + needed <= self._max_bytes or not loaded):
                return
            idle = [r for r in loaded if not r.users and r.name not in self._pinned]
            if not idle:
                raise Overloaded(
                    f"no room for model {stored.name.short!r}: it needs {needed >> 20} MiB, and the {len(loaded)} "
                    f"models in memory ({taken >> 20} MiB) are in use or to be kept"
                )
            self._evict(min(idle, key=lambda r: r.used))
