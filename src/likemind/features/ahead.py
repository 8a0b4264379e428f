"""Images decoded ahead of the network, in threads: Pillow and torch let go of the interpreter while they work."""

from __future__ import annotations

import os
from collections import deque
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from typing import TYPE_CHECKING

import numpy as np
import torch

from likemind.errors import LikemindError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from concurrent.futures import Future

    from likemind.images.collection import ImageCollection
    from likemind.images.decode import Preprocessing

_AHEAD = 2
"""Batches that are prepared while one is in the network."""
_MOST = 16


def default_workers() -> int:
    """Return one less than the processors that this process may use, from 1 to 16."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(_MOST, usable - 1))


def prepared_batches(
    images: ImageCollection,
    positions: Sequence[int],
    recipe: Preprocessing,
    *,
    size: int,
    workers: int | None = None,
    skip_bad: bool = False,
) -> Iterator[tuple[torch.Tensor, list[str | None]]]:
    """Yield batches of ``size`` images in order: pixels, and why an image cannot be read (its pixels are zero).

    Pixels are (n, 3, h, w) with the channels last in memory; the threads write them there.

    Raises:
        LikemindError: An image is unreadable and ``skip_bad`` is false.
    """

    def prepare(position: int, place: np.ndarray) -> str | None:
        try:
            image = images.read(position)
            try:
                place[:] = recipe(image).permute(1, 2, 0).numpy()
            except LikemindError as error:
                raise LikemindError(f"{images.path}: {images.ids[position]}: {error}") from None
        except LikemindError as error:
            if not skip_bad:
                raise
            place[:] = 0
            return str(error)
        return None

    pool = ThreadPoolExecutor(max_workers=workers or default_workers())

    def begin(batch: Sequence[int]) -> tuple[np.ndarray, list[Future[str | None]]]:
        pixels = np.empty((len(batch), recipe.size, recipe.size, 3), dtype=np.float32)
        return pixels, [pool.submit(prepare, *one) for one in zip(batch, pixels, strict=True)]

    batches = [positions[start : start + size] for start in range(0, len(positions), size)]
    try:
        waiting = deque(begin(batch) for batch in batches[:_AHEAD])
        for number in range(len(batches)):
            pixels, futures = waiting.popleft()
            wait(futures, return_when=FIRST_EXCEPTION)  # once, rather than waking up for every image
            messages = [future.result() for future in futures]
            if number + _AHEAD < len(batches):
                waiting.append(begin(batches[number + _AHEAD]))
            yield torch.from_numpy(pixels).permute(0, 3, 1, 2), messages
    finally:
        pool.shutdown(cancel_futures=True)
