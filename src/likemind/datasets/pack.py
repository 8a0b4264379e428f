"""The pack: public photographs and human answers, made from the files as they were published.

It holds the layout that ``open_photographs`` reads::

    photos/imagenet_sample.parquet    1,000 photographs, one of each ImageNet-1k class
    photos/caltech101.parquet         2,904 photographs of 101 classes
    things/concepts.tsv               the 1,854 THINGS concepts
    things/vice_embedding.npy         VICE's embedding of them, in the order of concepts.tsv
    things/human_triplets_2171.npy    answers of people, the third column is the odd one out
    things/rdm48.npy, rdm48_rows.npy  dissimilarities of 48 objects by people, and their rows in concepts.tsv
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import json
from importlib.resources import files
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
from PIL import Image

from likemind.artifacts import write_atomic
from likemind.datasets.download import Source
from likemind.progress import track
from likemind.triplets import write_table

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

IMAGENET, CALTECH = "imagenet-sample", "caltech101"
"""Parts of ``sources.csv`` that are photographs."""

CONCEPTS = "data/files/things_concepts.tsv"
CLASSES = "imagenet_class_hierarchy/modified/dataset_class_info.json"
VICE = "embeddings/things/final_embedding.npy"
SPOSE = "data/spose_embedding66d_rescaled.csv"
ANSWERS = "analysis_and_figure_drawing/GPT3.5vsGPT4/2171trials_humans.txt"
RDM = "data/RDM48_triplet.mat"
RDM_INDEX = "CLIP-HBA/Data/triplet48_index.npy"

_DATA = {CONCEPTS, CLASSES, VICE, SPOSE, ANSWERS, RDM, RDM_INDEX}
_SIZES = {IMAGENET: (256, 90), CALTECH: (160, 88)}
_TRAIN_SHARE = 0.7
_CONCEPT_COLUMNS = {
    "uniqueID": "uniqueID",
    "word": "Word",
    "wordnet_id": "WordNet ID",
    "bottom_up_category": "Bottom-up Category (Human Raters)",
    "top_down_category_wordnet": "Top-down Category (WordNet)",
    "top_down_category_manual": "Top-down Category (manual selection)",
    "all_bottom_up_categories": "All Bottom-up Categories",
}


def read_sources(*, all_parts: bool = False) -> list[Source]:
    """Return the public files that the pack is made from; with ``all_parts``, the others of the table too.

    Example:
        >>> len(read_sources())
        3911
    """
    table = gzip.decompress((files("likemind.datasets") / "tables" / "sources.csv.gz").read_bytes()).decode()
    rows = csv.DictReader(io.StringIO(table))
    sources = [
        Source(row["set"], row["repository"], row["commit"], row["path"], row["sha256"], int(row["bytes"]))
        for row in rows
    ]
    return [source for source in sources if all_parts or source.part in _SIZES or source.path in _DATA]


def concept_of(table: str, key: str) -> dict[str, str]:
    """Return class → THINGS concept by one of our tables of what means the same.

    Args:
        table: ``imagenet_to_things`` or ``caltech_to_things``.
        key: The column that names the class.

    Example:
        >>> concept_of("imagenet_to_things", "wnid")["n01443537"]
        'goldfish'
    """
    text = (files("likemind.datasets") / "tables" / f"{table}.csv").read_text(encoding="utf-8")
    return {row[key]: row["things_id"] for row in csv.DictReader(io.StringIO(text))}


def build_pack(sources: Sequence[Source], raw: Path, out: Path) -> None:
    """Make the pack.

    Args:
        sources: The published files.
        raw: The folder that ``download`` has put them into.
        out: The pack's folder; made if it is not there.
    """
    for folder in ("photos", "things"):
        (out / folder).mkdir(parents=True, exist_ok=True)
    data = {source.path: raw / source.name for source in sources if source.part not in _SIZES}
    photographs = {part: [source for source in sources if source.part == part] for part in _SIZES}
    _build_things(data, out / "things")
    classes = imagenet_rows([source.path for source in photographs[IMAGENET]], data[CLASSES])
    _write_photographs(out / "photos" / "imagenet_sample.parquet", classes, photographs[IMAGENET], raw)
    classes = caltech_rows([source.path for source in photographs[CALTECH]])
    _write_photographs(out / "photos" / "caltech101.parquet", classes, photographs[CALTECH], raw)


def _build_things(data: dict[str, Path], out: Path) -> None:
    from scipy.io import loadmat

    concepts = read_published_concepts(data[CONCEPTS], data[SPOSE])
    lines = ["\t".join(concepts[0]), *("\t".join(concept.values()) for concept in concepts)]
    write_atomic(out / "concepts.tsv", ("\n".join(lines) + "\n").encode())
    order = alphabetical([concept["reference_image"] for concept in concepts])
    _save(out / "vice_embedding.npy", reorder(np.load(data[VICE]), order).astype(np.float32))
    _save(out / "human_triplets_2171.npy", np.loadtxt(data[ANSWERS], dtype=np.int16, ndmin=2))
    _save(out / "rdm48.npy", loadmat(data[RDM])["RDM48_triplet"].astype(np.float64))
    _save(out / "rdm48_rows.npy", order[np.load(data[RDM_INDEX])].astype(np.int16))


def _save(path: Path, array: np.ndarray) -> None:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    write_atomic(path, buffer.getvalue())


def read_published_concepts(concepts: Path, spose: Path) -> list[dict[str, str]]:
    """Return the concepts in their published order, with the columns of the pack.

    Args:
        concepts: ``things_concepts.tsv`` as published.
        spose: SPoSE's table as published, whose column ``image_name`` has the names of the reference photographs. Only
            the names are used: they stand in alphabetical order there, so that 21 of them label another concept's row.
    """
    with spose.open(newline="", encoding="utf-8") as file:
        names = [row["image_name"] for row in csv.DictReader(file)]
    reference = {name.rpartition("_")[0]: name for name in names}
    with concepts.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    return [
        {"index": str(index)}
        | {ours: row[theirs] for ours, theirs in _CONCEPT_COLUMNS.items()}
        | {"reference_image": reference[row["uniqueID"]]}
        for index, row in enumerate(rows)
    ]


def alphabetical(names: Sequence[str]) -> np.ndarray:
    """Return, for each place in the alphabetical order of the names, the row that stands there.

    VICE's rows and the index of the 48 objects follow the alphabet of the reference photographs' names, not the order
    of the concepts: ``camera1_01b.jpg`` comes before ``camera_lens_01b.jpg``. 21 rows differ. So the index's 246 is
    ``camera1``, which is row 247 of concepts.tsv, and not ``camera_lens``, which is row 246.

    Example:
        >>> alphabetical(["camera_lens_01b.jpg", "camera1_01b.jpg", "ice_01b.jpg"]).tolist()
        [1, 0, 2]
    """
    return np.array(sorted(range(len(names)), key=names.__getitem__), dtype=np.int64)


def reorder(rows: np.ndarray, order: np.ndarray) -> np.ndarray:
    """Return alphabetical rows in the order of concepts.tsv, where ``order`` comes from ``alphabetical``."""
    ordered = np.empty_like(rows)
    ordered[order] = rows
    return ordered


def imagenet_rows(paths: Sequence[str], names: Path) -> dict[str, list[str | None]]:
    """Return id, WordNet id, class and concept of the ImageNet sample's photographs.

    Args:
        paths: The files, such as ``n01440764_tench.JPEG``.
        names: ``dataset_class_info.json`` of BREEDS, which has each class's full name.
    """
    class_name: dict[str, str] = {wnid: name for _, wnid, name in json.loads(names.read_text(encoding="utf-8"))}
    concept = concept_of("imagenet_to_things", "wnid")
    ids = [PurePosixPath(path).stem for path in paths]
    wnids = [name.partition("_")[0] for name in ids]
    return {
        "id": [*ids],
        "wnid": [*wnids],
        "class_name": [class_name[wnid] for wnid in wnids],
        "things_id": [concept.get(wnid) for wnid in wnids],
    }


def caltech_rows(paths: Sequence[str]) -> dict[str, list[str | None]]:
    """Return id, class, concept and split of the Caltech-101 photographs.

    Of each class, the files are ranked by the SHA-256 of ``split:`` and their path without its first folder; the first
    70 % train, the others test.

    Args:
        paths: The files, such as ``101_ObjectCategories/Faces/image_0024.jpg``.
    """
    concept = concept_of("caltech_to_things", "class_name")
    files = [path.partition("/")[2] for path in paths]
    classes = [file.partition("/")[0] for file in files]
    train = set()
    for name in set(classes):
        ranked = sorted((file for file in files if file.startswith(f"{name}/")), key=_split_rank)
        train.update(ranked[: round(_TRAIN_SHARE * len(ranked))])
    return {
        "id": [str(PurePosixPath(file).with_suffix("")) for file in files],
        "class_name": [*classes],
        "things_id": [concept.get(name) for name in classes],
        "split": ["train" if file in train else "test" for file in files],
    }


def _split_rank(file: str) -> str:
    return hashlib.sha256(f"split:{file}".encode()).hexdigest()


def _write_photographs(path: Path, columns: dict[str, list[str | None]], sources: Sequence[Source], raw: Path) -> None:
    shown = track(sources, total=len(sources), what=f"making {path.stem}")
    images = [shrink((raw / source.name).read_bytes(), *_SIZES[source.part]) for source in shown]
    table = {name: pa.array(values, pa.string()) for name, values in columns.items()}
    write_table(path, pa.table(table | {"image": pa.array(images, pa.binary())}))


def shrink(data: bytes, side: int, quality: int) -> bytes:
    """Return a photograph as an RGB JPEG whose shorter side has so many pixels.

    The EXIF data are dropped and not followed: one picture of the ImageNet sample, ``n02951585_can_opener``, which its
    EXIF data call turned, stays as its pixels lie. Smaller photographs are enlarged.

    Args:
        data: The file as published.
        side: Pixels of the shorter side.
        quality: Of the JPEG.
    """
    image = Image.open(io.BytesIO(data)).convert("RGB")
    scale = side / min(image.size)
    width, height = (round(length * scale) for length in image.size)
    buffer = io.BytesIO()
    resized = image.resize((width, height), Image.Resampling.LANCZOS)
    resized.save(buffer, "JPEG", quality=quality, optimize=True)
    return buffer.getvalue()
