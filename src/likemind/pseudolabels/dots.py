"""Teacher features on disk, and the dot products of triplets' pairs, read where they lie."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numba
import numpy as np
from numba.extending import intrinsic

from likemind.distributed import Over, here
from likemind.errors import LikemindError
from likemind.pseudolabels.blocks import SHARD, Rows, blocks, mapped, shards

if TYPE_CHECKING:
    from pathlib import Path

    from likemind.features.store import FeatureStore
    from likemind.teacher.teacher import Teacher

_WIDE = 1 << 30
"""Bytes up to which teacher features are kept as float32."""

TRIPLETS = 1 << 20
"""Triplets of a shard."""


def aligned_features(store: FeatureStore, teacher: Teacher, path: Path, over: Over = here) -> np.ndarray:
    """Write the teacher's features of all images to ``path`` a block at a time, and map them.

    They are float32 up to 1 GiB. Beyond that they are float16: its rounding moves a dot product by less than 0.1 % of
    the similarities' standard deviation in the mean (``benchmarks/label.py``).

    Args:
        store: The images' features.
        teacher: The map.
        path: A file to write; the engine's workers write their parts of it.
        over: The engine.

    Raises:
        LikemindError: A feature is not finite, or too large for float16; its image is named.
    """
    shape = store.features.shape
    dtype: Any = np.dtype(np.float32 if shape[0] * shape[1] * 4 <= _WIDE else np.float16)
    path.write_bytes(b"")
    for _ in over(_write_aligned, (store, teacher, path.absolute(), dtype), shards(shape[0])):
        pass
    return np.memmap(path.absolute(), dtype=dtype, mode="r", shape=shape)


def _write_aligned(plan: tuple[FeatureStore, Teacher, Path, np.dtype], start: int) -> None:
    """Write a shard where it belongs in the file, which must be there: it is gone with the run that made it."""
    store, teacher, path, dtype = plan
    with path.open("r+b") as file:  # written, not mapped: on a full disk a mapped write kills the process
        file.seek(start * store.features.shape[1] * dtype.itemsize)
        for rows, block in blocks(store.features, start=start, stop=start + SHARD):
            aligned = teacher.transform(block)
            beyond = ~(np.abs(aligned) <= np.finfo(dtype).max).all(axis=1)
            if beyond.any():
                name = store.ids[rows.start + int(np.flatnonzero(beyond)[0])]
                raise LikemindError(
                    f"the teacher's features of {name!r} are not finite in {dtype}: embed the images again, or check "
                    "the teacher's scale"
                )
            file.write(aligned.astype(dtype).tobytes())


def labelled(aligned: np.ndarray, indices: np.ndarray, path: Path, over: Over = here) -> np.ndarray:
    """Return what ``pair_products`` returns, by shards of triplets; their indices are written to ``path`` meanwhile.

    Shapes:
        aligned: (images, d), float32 or float16. indices: (n, 3) int32. Returns (n, 3) float32.
    """
    with path.open("wb") as file:
        file.write(indices.tobytes())
    products = np.empty(indices.shape, dtype=np.float32)
    plan = Rows(aligned), mapped(path.absolute(), indices.dtype, indices.shape)
    for start, found in over(_pair_products, plan, shards(len(indices), TRIPLETS)):
        products[start : start + TRIPLETS] = found
    return products


def _pair_products(plan: tuple[Rows, Rows], start: int) -> np.ndarray:
    rows, indices = plan
    return pair_products(rows.array, indices.array[start : start + TRIPLETS])


def pair_products(rows: np.ndarray, indices: np.ndarray) -> np.ndarray:
    """Return the dot products of the pairs 01, 02, 12 of each triplet, summed in float32.

    Shapes:
        rows: (images, d), float32 or float16. indices: (n, 3). Returns (n, 3) float32.

    Example:
        >>> pair_products(np.eye(3, dtype=np.float16) + np.float16(1), np.array([[0, 1, 2]]))
        array([[5., 5., 5.]], dtype=float32)
    """
    rows, indices = np.asarray(rows), np.asarray(indices)
    products = np.empty((len(indices), 3), dtype=np.float32)
    if rows.dtype == np.float16:
        _half_products(rows.view(np.uint16), indices, products)
    else:
        _products(rows, indices, products)
    return products


@numba.njit(cache=True, fastmath={"reassoc", "contract", "nsz"})
def _products(rows: np.ndarray, indices: np.ndarray, out: np.ndarray) -> None:
    """Write the products without gathering the rows."""
    for t in range(len(indices)):
        a, b, c = rows[indices[t, 0]], rows[indices[t, 1]], rows[indices[t, 2]]
        ab = ac = bc = np.float32(0.0)
        for k in range(rows.shape[1]):
            ab += a[k] * b[k]
            ac += a[k] * c[k]
            bc += b[k] * c[k]
        out[t, 0], out[t, 1], out[t, 2] = ab, ac, bc


def _widened(_: Any, bits: Any) -> Any:
    """Turn the bits of a float16 into a float32; numba knows no float16 on a CPU."""
    from llvmlite import ir  # type: ignore[import-untyped]

    def code(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.fpext(builder.bitcast(arguments[0], ir.HalfType()), ir.FloatType())

    return numba.types.float32(bits), code


_widen: Any = intrinsic(_widened)


@numba.njit(cache=True, fastmath={"reassoc", "contract", "nsz"})
def _half_products(rows: np.ndarray, indices: np.ndarray, out: np.ndarray) -> None:
    """Write the products of rows that are given as the bits of float16."""
    for t in range(len(indices)):
        a, b, c = rows[indices[t, 0]], rows[indices[t, 1]], rows[indices[t, 2]]
        ab = ac = bc = np.float32(0.0)
        for k in range(rows.shape[1]):
            x, y, z = _widen(a[k]), _widen(b[k]), _widen(c[k])
            ab += x * y
            ac += x * z
            bc += y * z
        out[t, 0], out[t, 1], out[t, 2] = ab, ac, bc
