"""Bulk files over a cluster, by Ray Data: windows are read here, embedded by actors anywhere, and kept here."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import ray
from ray.data import ActorPoolStrategy, DataContext, Datasource, ReadTask
from ray.data.block import BlockMetadata

from unitvec import config
from unitvec.bulk.executor import Pipeline
from unitvec.bulk.local import Local
from unitvec.bulk.run import missing
from unitvec.bulk.sources import Source
from unitvec.bulk.window import Part, Window, embed_window
from unitvec.bulk.work import Work
from unitvec.cluster.connect import connect
from unitvec.errors import UnitvecError
from unitvec.store.model import StoredModel
from unitvec.store.name import Name

_CORES = 4  # of an actor, at most: more processes take more memory, larger ones fit on fewer nodes


@dataclass(frozen=True)
class Recipe:
    """What an actor does. Plain values: it is sent to each.

    Attributes:
        model: its name.
        digest: what the name must stand for on every node.
        dtype: of the vectors.
        options: see :class:`unitvec.bulk.local.Local`.
    """

    model: Name
    digest: str
    dtype: str
    options: dict[str, Any]


class Cluster(Pipeline):
    """Embeds windows on a Ray cluster.

    Args:
        address: the cluster's; see :func:`unitvec.cluster.connect.connect`.
        stored: the model, as it is here.
        source: makes the input; called on this node, in another process.
        dtype: of the vectors.
        options: see :class:`unitvec.bulk.local.Local`.

    Raises:
        UnitvecError: there is no cluster.
    """

    def __init__(
        self,
        address: str | None,
        stored: StoredModel,
        source: Callable[[], Source],
        dtype: str,
        options: dict[str, Any],
    ) -> None:
        self.digest = stored.digest
        width = stored.open().spec.embedding_length
        self.width = options["dimensions"] if 0 < options["dimensions"] < width else width
        self._source = source
        self._recipe = Recipe(stored.name, stored.digest, dtype, options)
        connect(address)

    def parts(self, work: Work | None) -> Iterator[Part]:
        """See the class above. Ray holds the reading up while windows wait, and the actors while parts do."""
        context = DataContext.get_current()
        context.enable_progress_bars = False
        context.execution_options.preserve_order = True
        context.target_max_block_size = 1  # a window at a time: it need not wait for others to fill a block
        here = {"ray.io/node-id": ray.get_runtime_context().get_node_id()}
        windows = ray.data.read_datasource(_Windows(self._source, work), num_cpus=0, concurrency=1, label_selector=here)
        cpus = [int(node["Resources"].get("CPU", 0)) for node in ray.nodes() if node["Alive"]]
        cores = min(_CORES, *(count for count in cpus if count), _CORES)
        actors = max(1, sum(count // cores for count in cpus))
        parts = windows.map_batches(
            _Embedder,
            fn_constructor_args=(self._recipe, cores),
            batch_size=1,
            batch_format="pyarrow",
            compute=ActorPoolStrategy(min_size=1, max_size=actors),
            num_cpus=cores,
        )
        for table in parts.iter_batches(batch_size=1, batch_format="pyarrow", prefetch_batches=1):
            part = pickle.loads(table["bytes"][0].as_py())  # noqa: S301  from our own actor
            if isinstance(part, UnitvecError):
                raise part
            yield part

    def close(self) -> None:
        """Leave the cluster; its actors end."""
        ray.shutdown()


class _Windows(Datasource):
    """The windows that have no part yet, a row each; read by one task, which waits when nobody takes them."""

    def __init__(self, source: Callable[[], Source], work: Work | None) -> None:
        self._source = source
        self._work = work

    def estimate_inmemory_data_size(self) -> int | None:
        """Not known before it is read."""
        return None

    def get_read_tasks(self, parallelism: int, *_: Any, **__: Any) -> list[ReadTask]:  # noqa: ARG002
        """One: where a window ends depends on all before it."""
        source, work = self._source, self._work

        def read() -> Iterator[pa.Table]:
            found = source()
            for window in found.windows() if work is None else missing(found, work):
                yield _table(window)

        return [ReadTask(read, BlockMetadata(None, None, None, None))]


class _Embedder:
    """An actor: loads the model with its first window."""

    def __init__(self, recipe: Recipe, cores: int) -> None:
        self._recipe = recipe
        self._cores = cores
        self._local: Local | None = None

    def __call__(self, table: pa.Table) -> pa.Table:
        """A window's part, or what is wrong here."""
        window: Window = pickle.loads(table["bytes"][0].as_py())  # noqa: S301  from our own reader
        try:
            return _table(embed_window(window, self._local or self._load(), self._recipe.dtype))
        except UnitvecError as error:
            return _table(error)

    def _load(self) -> Local:
        stored = config.stores().fetch(self._recipe.model)
        if stored.digest != self._recipe.digest:
            raise UnitvecError(f"node {ray.util.get_node_ip_address()} has another model as {stored.name.short}")
        self._local = Local(stored, cores=self._cores, **self._recipe.options)
        return self._local


def _table(value: object) -> pa.Table:
    return pa.table({"bytes": pa.array([pickle.dumps(value)], pa.large_binary())})
