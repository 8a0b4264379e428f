"""AligNet's pseudo-labels: triplets of image files with the teacher's similarities, as ``.npz``, read in blocks."""

from __future__ import annotations

import math
import zipfile
import zlib
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from likemind.errors import LikemindError, few, first_line
from likemind.readers.names import joined
from likemind.triplets import Triplets

if TYPE_CHECKING:
    from collections.abc import Iterator

    from likemind.artifacts import PathLike
    from likemind.readers.names import ItemNames

_BLOCK = 150_000
"""Values of a member that are in memory at once."""

_BROKEN = (zipfile.BadZipFile, zlib.error, ValueError, OSError, EOFError, NotImplementedError, RuntimeError)
_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
_ODD_LAST = np.array([[0, 1, 2], [0, 2, 1], [1, 2, 0]])
"""Order of the items that puts a pair first, by the pair's number."""
_PAIRS_THEN = np.array([[0, 1, 2], [1, 0, 2], [2, 0, 1]])
"""Order of the pairs 01, 02, 12 after the items have been put so."""


def read_alignet(path: Path, items: ItemNames | None, source: str | None) -> tuple[Triplets, list[str]]:
    """Read ``alignet_train.npz``: ``filenames`` (n, 3) and ``similarities`` (n, 3) of the pairs 01, 02, 12.

    Image 2 should be the odd one out, so that the first similarity is the largest. That is computed again for every
    row. Rows where it is not so are counted and kept with the similarities that they have. The member ``indices``
    counts another library's copy of ImageNet and is not read: images are joined by file name.

    Ten million rows take under 1 GB: members are read in blocks, names become int32, similarities float32.

    Args:
        path: The file.
        items: Ids of the images; the file's names are joined to them without folders and ending. The names themselves
            if None.
        source: Of the triplets; ``pseudo`` if None.

    Returns:
        The triplets with ``similarities`` and no choice, and what there is to say of them.

    Raises:
        LikemindError: The file is cut off, or a member is missing or of another shape or type.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            names, indices = _names(archive, path)
            similarities = _similarities(archive, path)
    except _BROKEN as error:
        if isinstance(error, LikemindError):
            raise
        raise LikemindError(f"{path} is not a whole .npz file ({first_line(error)}): fetch it again") from None
    if len(indices) != len(similarities) or not len(indices):
        counts = f"{len(indices)} rows of filenames and {len(similarities)} of similarities"
        raise LikemindError(f"{path} has {counts}: fetch it again")
    notes = _order(similarities)
    try:
        found = Triplets(joined(names, items, path), indices, similarities=similarities, source=source or "pseudo")
    except LikemindError as error:
        text = str(error)
        raise LikemindError(text if text.startswith(str(path)) else f"{path}: {text}") from None
    return found, notes


def _order(similarities: np.ndarray) -> list[str]:
    """Say how many rows have another pair than 01 as the most similar one."""
    rows = range(0, len(similarities), _BLOCK)
    against = sum(int((similarities[row : row + _BLOCK].argmax(axis=1) != 0).sum()) for row in rows)
    if not against:
        return ["in every row the pair 01 is the most similar, as it should be"]
    share = against / len(similarities)
    return [f"in {against} of {len(similarities)} rows ({share:.2%}) the pair 01 is not the most similar; kept as is"]


def _names(archive: zipfile.ZipFile, path: Path) -> tuple[list[str], np.ndarray]:
    """Return the distinct file names in order of appearance, and (n, 3) int32 positions in them."""
    import pyarrow as pa

    number: dict[str, int] = {}
    with archive.open(_member(archive, "filenames", path)) as file:
        dtype, shape, fortran = _header(file, archive, "filenames", path)
        if dtype.kind not in "US" or not dtype.itemsize:
            raise LikemindError(f"{path}: filenames holds {dtype}, not texts: fetch it again")
        flat = np.empty(math.prod(shape), dtype=np.int32)
        for start, block in _blocks(file, dtype, len(flat)):
            texts = pa.array(block if dtype.kind == "U" else np.char.decode(block, "utf-8")).dictionary_encode()
            here = [number.setdefault(name, len(number)) for name in texts.dictionary.to_pylist()]
            flat[start : start + len(block)] = np.array(here, dtype=np.int32)[texts.indices.to_numpy()]
    return list(number), flat.reshape(shape, order="F" if fortran else "C")


def _similarities(archive: zipfile.ZipFile, path: Path) -> np.ndarray:
    with archive.open(_member(archive, "similarities", path)) as file:
        dtype, shape, fortran = _header(file, archive, "similarities", path)
        if dtype.kind != "f":
            raise LikemindError(f"{path}: similarities holds {dtype}, not floating numbers: fetch it again")
        flat = np.empty(math.prod(shape), dtype=np.float32)
        for start, block in _blocks(file, dtype, len(flat)):
            flat[start : start + len(block)] = block
    return flat.reshape(shape, order="F" if fortran else "C")


def _member(archive: zipfile.ZipFile, name: str, path: Path) -> str:
    there = [member.removesuffix(".npy") for member in archive.namelist()]
    if name not in there:
        raise LikemindError(f"{path} has no {name} (it has {few(there)}): it is not AligNet's; check the file")
    return f"{name}.npy"


def _header(
    file: IO[bytes], archive: zipfile.ZipFile, name: str, path: Path
) -> tuple[np.dtype[Any], tuple[int, int], bool]:
    """Read a member's header, and check that what follows is as long as it says."""
    version = np.lib.format.read_magic(file)
    if version not in _HEADERS:
        raise LikemindError(f"{path}: {name} has the .npy version {version}: save it again with numpy.savez")
    shape, fortran, dtype = _HEADERS[version](file)
    if len(shape) != 2 or shape[1] != 3:
        raise LikemindError(f"{path}: {name} needs the shape (n, 3), got {shape}: fetch it again")
    if dtype.hasobject:
        raise LikemindError(f"{path}: {name} holds Python objects, which could run code: save it as texts or numbers")
    if file.tell() + math.prod(shape) * dtype.itemsize != archive.getinfo(f"{name}.npy").file_size:
        raise LikemindError(f"{path}: {name} is not as long as it says: fetch it again")
    return dtype, shape, fortran


def _blocks(file: IO[bytes], dtype: np.dtype[Any], count: int) -> Iterator[tuple[int, np.ndarray]]:
    for start in range(0, count, _BLOCK):
        size = min(_BLOCK, count - start) * dtype.itemsize
        data = file.read(size)
        if len(data) < size:
            raise EOFError("it ends early")
        yield start, np.frombuffer(data, dtype)


def to_alignet(triplets: Triplets, path: PathLike) -> None:
    """Write AligNet's ``.npz``, each row's items ordered so that the pair 01 is the most similar: the odd one last.

    Members ``filenames`` and ``similarities`` (float32), and ``indices``, positions in ``triplets.items``.

    Args:
        triplets: With similarities.
        path: The file, ending in ``.npz``.

    Raises:
        LikemindError: The triplets hold no similarities, or a name ends in a NUL, which ``.npz`` cannot hold.

    Example:
        >>> to_alignet(likemind.label(...), "alignet_train.npz")  # doctest: +SKIP
    """
    place = Path(path)
    try:
        write_alignet(triplets, place)
    except OSError as error:
        place.with_name(place.name + ".tmp").unlink(missing_ok=True)
        raise LikemindError(f"{place} cannot be written ({error.strerror}): choose another place") from None


def write_alignet(triplets: Triplets, place: Path) -> None:
    """Do what ``to_alignet`` does, and leave it to whoever makes an artifact to say why a file cannot be written."""
    if triplets.similarities is None:
        raise LikemindError("these triplets hold no similarities: label them, or take a HumanEmbedding's triplets")
    if any(name.endswith("\0") for name in triplets.items):
        raise LikemindError("a name ends in NUL, which .npz cannot hold: rename it")
    best = triplets.similarities.argmax(axis=1)
    indices = np.take_along_axis(triplets.indices, _ODD_LAST[best], axis=1)
    similarities = np.take_along_axis(triplets.similarities, _PAIRS_THEN[best], axis=1).astype(np.float32)
    names = np.array(list(triplets.items), dtype=np.str_)
    temporary = place.with_name(place.name + ".tmp")
    with zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        _write(archive, "filenames", names, indices)
        _write(archive, "similarities", similarities)
        _write(archive, "indices", indices)
    temporary.replace(place)


def _write(archive: zipfile.ZipFile, name: str, values: np.ndarray, rows: np.ndarray | None = None) -> None:
    """Write ``values``, or ``values[rows]``, as a member, a block at a time."""
    shape = values.shape if rows is None else rows.shape
    about = {"descr": np.lib.format.dtype_to_descr(values.dtype), "fortran_order": False, "shape": shape}
    with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
        np.lib.format.write_array_header_1_0(file, about)
        for start in range(0, shape[0], _BLOCK):
            block = slice(start, start + _BLOCK)
            file.write(np.ascontiguousarray(values[block] if rows is None else values[rows[block]]).tobytes())
