"""Images decoded ahead of the network, in threads: Pillow and torch let go of the interpreter while they work."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import torch

from likemind.errors import LikemindError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

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

    Raises:
        LikemindError: An image is unreadable and ``skip_bad`` is false.
    """

    def prepare(position: int) -> tuple[torch.Tensor, str | None]:
        try:
            image = images.read(position)
            try:
                return recipe(image), None
            except LikemindError as error:
                raise LikemindError(f"{images.path}: {images.ids[position]}: {error}") from None
        except LikemindError as error:
            if not skip_bad:
                raise
            return torch.zeros(3, recipe.size, recipe.size), str(error)

    batches = [positions[start : start + size] for start in range(0, len(positions), size)]
    pool = ThreadPoolExecutor(max_workers=workers or default_workers())
    try:
        waiting = [[pool.submit(prepare, position) for position in batch] for batch in batches[:_AHEAD]]
        for number in range(len(batches)):
            pixels, messages = zip(*(future.result() for future in waiting.pop(0)), strict=True)
            if number + _AHEAD < len(batches):
                waiting.append([pool.submit(prepare, position) for position in batches[number + _AHEAD]])
            yield torch.stack(list(pixels)), list(messages)
    finally:
        pool.shutdown(cancel_futures=True)
