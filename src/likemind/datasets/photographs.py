"""Public photographs and human answers about objects: from a folder, or fetched from where they were published."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from likemind.artifacts import Artifact, PathLike
from likemind.datasets.download import GITHUB, Server, download
from likemind.datasets.pack import build_pack, read_sources
from likemind.errors import LikemindError, few, first_line
from likemind.hashes import cache_folder, key_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from likemind.datasets.download import Source

LICENCES = {
    "concepts and VICE embedding": (
        "GPL-3.0 as stated by the repository LukasMut/VICE: Muttenthaler et al. 2022, NeurIPS, VICE; "
        "concepts by Hebart et al. 2019, PLoS ONE, THINGS"
    ),
    "human dissimilarities of 48 objects": (
        "MIT as stated by the repository marrenj/cvpr_perturbations, and S-Lab License 1.0 (non-commercial) as stated "
        "by marrenj/CLIP-HBA-Mem for their order: Hebart et al. 2020, Nature Human Behaviour; 2023, eLife, THINGS-data"
    ),
    "2,171 human answers": (
        "MIT as stated by the repository ChangdeDu/LLMs_core_dimensions: Du et al. 2025, Nature Machine Intelligence"
    ),
    "ImageNet photographs": (
        "no licence stated by the repository EliSchwartz/imagenet-sample-images, ImageNet's terms are non-commercial "
        "research: Russakovsky et al. 2015, IJCV"
    ),
    "ImageNet class names": (
        "no licence stated by the repository MadryLab/BREEDS-Benchmarks, derived from WordNet 3.0: "
        "Santurkar et al. 2021, ICLR"
    ),
    "Caltech-101 photographs": (
        "no licence stated by the repository MachineLearning2020/Homework2-Caltech101: Fei-Fei et al. 2004"
    ),
    "Tiny-ImageNet photographs": (
        "no licence stated by the repository seshuad/IMagenet, ImageNet's terms are non-commercial research: "
        "Stanford CS231N"
    ),
}
"""What → licence and credit, as stated where it was published."""


@dataclass(frozen=True)
class Photographs:
    """Where the public photographs and human data lie.

    Attributes:
        imagenet: Parquet with id, wnid, class_name, things_id, image: one photograph of each ImageNet-1k class.
        caltech: Parquet with id, class_name, things_id, split (``train`` or ``test``), image: Caltech-101.
        tiny: Parquet with id, wnid, class_name, things_id, split (``train`` or ``val``), image: Tiny-ImageNet, or None.
        concepts: THINGS ``concepts.tsv``; read it with ``read_concepts``.
        embedding: VICE, float32 ``.npy`` with a row for each row of ``concepts``.
        human_triplets: int16 ``.npy`` of rows of ``concepts``; the third column is the odd one out.
        rdm: float64 ``.npy``, dissimilarities of 48 objects by people, in [0, 1].
        rdm_rows: int16 ``.npy``, the row of ``concepts`` of each of the 48.
        licences: What → licence and credit.
    """

    imagenet: Path
    caltech: Path
    tiny: Path | None
    concepts: Path
    embedding: Path
    human_triplets: Path
    rdm: Path
    rdm_rows: Path
    licences: dict[str, str]


def open_photographs(data_dir: PathLike | None = None, *, cache: PathLike | None = None) -> Photographs:
    """Find the photographs and human data, fetching them where no folder is given.

    Args:
        data_dir: A folder that holds them, as ``photos/`` and ``things/``. None fetches 3,911 files (150 MB) from the
            public GitHub repositories that published them, once, and makes such a folder in the cache; Tiny-ImageNet
            is not among them.
        cache: The cache folder; None is ``$LIKEMIND_CACHE``, or the system's usual place.

    Returns:
        Where each file lies; their layout has been checked.

    Raises:
        LikemindError: A file of ``data_dir`` is missing or not as it must be, or the files cannot be fetched.

    Example:
        >>> open_photographs("data").concepts  # doctest: +SKIP
        PosixPath('data/things/concepts.tsv')
    """
    if data_dir is not None:
        return check_photographs(Path(data_dir))
    return fetch_photographs(cache_folder() if cache is None else Path(cache))


def pack_folder(root: Path) -> Path:
    """Return where a folder of data sets has the pack: itself, or where ``fetch_photographs`` puts it."""
    return root if (root / "photos").is_dir() else root / "photographs" / "pack"


def fetch_photographs(cache: Path, *, sources: Sequence[Source] | None = None, server: Server = GITHUB) -> Photographs:
    """Fetch the published files that are missing and make the pack from them, both in ``cache/photographs``.

    A pack that is there is used as it is, and nothing is asked of the network. Interrupted, the same call goes on.

    Args:
        cache: The cache folder.
        sources: The published files; None takes those of ``sources.csv``.
        server: Where they come from.

    Raises:
        LikemindError: As ``download``; or another process is at it.
    """
    wanted = read_sources() if sources is None else sources
    raw, pack = cache / "photographs" / "raw", cache / "photographs" / "pack"
    inputs = {"sources": key_of(files={source.name: source.sha256 for source in wanted})}
    with Artifact(pack, verb="photographs", config={}, inputs=inputs, overwrite=True) as work:
        if not work.done:
            download(wanted, raw, server=server)
            build_pack(wanted, raw, work.path)
    return check_photographs(pack)


_IMAGE_COLUMNS = {
    "imagenet_sample": ("id", "wnid", "class_name", "things_id", "image"),
    "caltech101": ("id", "class_name", "things_id", "split", "image"),
    "tiny_imagenet": ("id", "wnid", "class_name", "things_id", "split", "image"),
}


def check_photographs(folder: Path) -> Photographs:
    """Return where a pack's files lie.

    Args:
        folder: The pack; it need not have Tiny-ImageNet.

    Raises:
        LikemindError: A file is missing or not as it must be.
    """
    photos, things = folder / "photos", folder / "things"
    tiny = photos / "tiny_imagenet.parquet"
    found = Photographs(
        imagenet=photos / "imagenet_sample.parquet",
        caltech=photos / "caltech101.parquet",
        tiny=tiny if tiny.exists() else None,
        concepts=things / "concepts.tsv",
        embedding=things / "vice_embedding.npy",
        human_triplets=things / "human_triplets_2171.npy",
        rdm=things / "rdm48.npy",
        rdm_rows=things / "rdm48_rows.npy",
        licences={what: text for what, text in LICENCES.items() if tiny.exists() or not what.startswith("Tiny")},
    )
    concepts = [concept["uniqueID"] for concept in read_concepts(found.concepts)]
    _check_arrays(found, len(concepts))
    for table in (found.imagenet, found.caltech, found.tiny):
        if table is not None:
            _check_table(table, set(concepts))
    return found


def read_concepts(path: Path) -> list[dict[str, str]]:
    """Read THINGS' ``concepts.tsv``: a dictionary for each concept; the file has no quoting.

    Raises:
        LikemindError: It is missing, or not such a file.

    Example:
        >>> read_concepts(open_photographs("data").concepts)[0]["uniqueID"]  # doctest: +SKIP
        'aardvark'
    """
    _require(path)
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise _odd(path, first_line(error)) from None
    for number, row in enumerate(rows):
        if None in row or None in row.values() or row.get("index") != str(number) or not row.get("uniqueID"):
            raise _odd(path, f"line {number + 2} must have the index {number} and a uniqueID")
    if not rows:
        raise _odd(path, "it has no concepts")
    return rows


def _check_arrays(found: Photographs, concepts: int) -> None:
    embedding = _load(found.embedding)
    if embedding.ndim != 2 or len(embedding) != concepts or embedding.dtype.kind != "f":
        raise _odd(found.embedding, f"it must have a row of numbers for each of the {concepts} concepts")
    triplets = _load(found.human_triplets)
    if triplets.ndim != 2 or triplets.shape[1] != 3 or not _are_rows(triplets, concepts):
        raise _odd(found.human_triplets, f"it must have three columns of rows of the {concepts} concepts")
    rows = _load(found.rdm_rows)
    if rows.ndim != 1 or not _are_rows(rows, concepts):
        raise _odd(found.rdm_rows, f"it must list rows of the {concepts} concepts")
    if _load(found.rdm).shape != (len(rows), len(rows)):
        raise _odd(found.rdm, f"it must have {len(rows)} rows and columns, as {found.rdm_rows.name} says")


def _are_rows(array: np.ndarray, concepts: int) -> bool:
    return array.dtype.kind in "iu" and bool(((array >= 0) & (array < concepts)).all())


def _load(path: Path) -> np.ndarray:
    _require(path)
    try:
        array: np.ndarray = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise _odd(path, first_line(error)) from None
    return array


def _check_table(path: Path, concepts: set[str]) -> None:
    _require(path)
    try:
        file = pq.ParquetFile(path)
        missing = [name for name in _IMAGE_COLUMNS[path.stem] if name not in file.schema_arrow.names]
        named = [] if missing else file.read(columns=["things_id"])["things_id"].unique().to_pylist()
    except (pa.ArrowException, OSError) as error:
        raise _odd(path, first_line(error)) from None
    if missing:
        raise _odd(path, f"it has no column {', '.join(missing)}")
    stray = sorted({str(name) for name in named if name is not None} - concepts)
    if stray:
        raise _odd(path, f"its things_id {few(stray)} is not in concepts.tsv")


def _require(path: Path) -> None:
    if not path.is_file():
        raise LikemindError(
            f"{path} does not exist: put it there, pass another --data-dir, or leave --data-dir out to fetch the files"
        )


def _odd(path: Path, reason: str) -> LikemindError:
    return LikemindError(
        f"{path} is not the file that is meant ({reason}): put the right one there, or leave --data-dir out to fetch it"
    )
