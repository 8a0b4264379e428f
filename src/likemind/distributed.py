"""Shards: a function of (plan, index) for each index, here one after the other, or by Ray Data on many processors.

A result depends on plan and index alone, so that engines agree byte for byte on one kind of machine. A worker that dies
loses a shard's work, which Ray does again elsewhere. Whoever maps writes the results down: no worker outlives the
process that asked for its work, or writes to an artifact on its own account.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import pickle
import traceback
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from likemind.errors import LikemindError, first_line

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

P = TypeVar("P")
T = TypeVar("T")


class Over(Protocol):
    """Calls a function for each index and yields (index, result), in any order."""

    def __call__(self, function: Callable[[P, int], T], plan: P, indices: Sequence[int]) -> Iterator[tuple[int, T]]:
        """Return the results as they come."""
        ...


def here(function: Callable[[P, int], T], plan: P, indices: Sequence[int]) -> Iterator[tuple[int, T]]:
    """Call the function in this process, in the order of the indices.

    Example:
        >>> list(here(lambda plan, index: plan + index, 10, [1, 2]))
        [(1, 11), (2, 12)]
    """
    for index in indices:
        yield index, function(plan, index)


def check_engine(engine: str, address: str | None) -> None:
    """Refuse an engine that is not known or not installed, and an address without a use."""
    if engine not in ("local", "ray"):
        raise LikemindError(f"engine {engine!r} is not known: choose 'local' or 'ray'")
    if engine == "local" and address is not None:
        raise LikemindError(f"the address {address!r} is of use to the engine ray alone: add --engine ray")
    if engine == "ray":
        try:
            import ray.data  # noqa: F401
        except ImportError as error:
            raise LikemindError(
                f"the engine ray needs a package that is not installed ({first_line(error)}): "
                "pip install 'likemind[ray]'"
            ) from None


@contextlib.contextmanager
def engine_of(name: str, address: str | None = None) -> Iterator[Over]:
    """Yield what maps over shards: ``local``, or ``ray`` on the cluster at an address, or on one of its own.

    A cluster that this process is connected to already is used, and left as it is.
    """
    if name == "local":
        yield here
        return
    import ray

    connected = ray.is_initialized()
    if not connected:
        _connect(address)
    try:
        yield _on_ray
    finally:
        if not connected:
            ray.shutdown()


def _connect(address: str | None) -> None:
    import ray

    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if address is None:
        usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        options |= {"num_cpus": usable, "include_dashboard": False, "address": "local"}
    try:
        ray.init(**{"address": address, **options})
    except (OSError, RuntimeError, ValueError) as error:
        where = "on this machine" if address is None else f"at {address}"
        raise LikemindError(
            f"there is no working Ray cluster {where} ({first_line(error)}): check --address, and that it runs the "
            "same versions of Ray and Python"
        ) from error


def _on_ray(function: Callable[[P, int], T], plan: P, indices: Sequence[int]) -> Iterator[tuple[int, T]]:
    """Call the function in Ray's workers; the plan is sent to each once, an index with each task."""
    if not len(indices):
        return
    import ray
    from ray.data import DataContext

    context = DataContext.get_current()
    context.enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    held, chosen = ray.put((function, plan)), list(indices)

    def shard(row: dict[str, Any]) -> dict[str, Any]:
        return {"index": chosen[row["id"]], "outcome": _outcome(held, chosen[row["id"]])}

    gpus = 1 if ray.cluster_resources().get("GPU") else None
    shards = ray.data.range(len(chosen), override_num_blocks=len(chosen)).map(shard, num_cpus=1, num_gpus=gpus)
    for row in shards.iter_rows():
        outcome = pickle.loads(row["outcome"])  # noqa: S301 - what a worker of ours has just pickled
        if isinstance(outcome, Exception):
            raise outcome
        yield row["index"], outcome


def _outcome(held: Any, index: int) -> bytes:
    """Return a shard's pickled result; or what went wrong, since Ray would try again without end."""
    try:
        function, plan = _received(held)
        return pickle.dumps(function(plan, index), protocol=5)
    except Exception as error:  # noqa: BLE001
        if not isinstance(error, LikemindError | OSError):
            error = RuntimeError("".join(traceback.format_exception(error)))
        return pickle.dumps(error, protocol=5)


@functools.lru_cache(maxsize=1)
def _received(held: Any) -> Any:
    """Return function and plan, which a process keeps for its next shard; it computes in one thread."""
    import ray
    import torch
    from threadpoolctl import threadpool_limits

    received = ray.get(held)
    torch.set_num_threads(1)
    threadpool_limits(1)
    return received
