"""The photographs world: natural images, a model of people that was fitted to millions of their answers, and people.

Whom the scores are about: VICE (Muttenthaler et al. 2022) predicts people's choices among THINGS' 1,854 concepts, and
gives the answers here (``human_model``). It was fitted to people's answers over *all* concepts, ours too. The few real
answers and ratings about these concepts (``human``) stand beside it.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from likemind.artifacts import Artifact, PathLike, key_of_path
from likemind.choice import log_probabilities, pair_similarities
from likemind.datasets.evaluation_set import Description, EvaluationSet, Item, Split, write_description
from likemind.datasets.photographs import open_photographs, read_concepts
from likemind.errors import LikemindError
from likemind.hashes import rank
from likemind.readers.ratings import RatingMatrix
from likemind.triplets import Triplets, write_table

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from likemind.datasets.photographs import Photographs

TRIALS: dict[Split, int] = {"train": 60_000, "validation": 6_000, "heldout": 12_000}
"""Split → number of triplets of three concepts, drawn evenly."""

JUDGEMENTS: dict[Split, str] = {
    "train": "teaching.parquet",
    "validation": "validation.parquet",
    "heldout": "heldout.parquet",
}
HELDOUT_SHARE, VALIDATION_SHARE = 0.25, 0.15
"""Of the concepts."""

JUDGED_CALTECH, TAUGHT_CALTECH, TAUGHT_TINY, TRAINING_TINY = 10, 4, 4, 20
"""Most photographs of a concept: Caltech's in triplets, and in teaching ones; Tiny-ImageNet's there; and a class of
Tiny-ImageNet's for the student."""

SHOWCASE = 8

ALIKE = {"Faces_easy": "Faces", "cougar_face": "cougar_body", "flamingo_head": "flamingo", "windsor_chair": "chair"}
"""Caltech's classes that show what another of its classes shows; they are left out."""

IMAGENET_OF = {
    "bass": (),
    "brain": (),
    "brontosaurus": ("n01704323",),
    "buddha": (),
    "ceiling_fan": ("n03271574",),
    "crocodile": ("n01697457", "n01698640"),
    "crocodile_head": ("n01697457", "n01698640"),
    "dollar_bill": (),
    "electric_guitar": ("n03272010",),
    "emu": ("n01518878",),
    "euphonium": ("n03110669", "n03394916"),
    "ewer": ("n03950228", "n04560804", "n04579145"),
    "garfield": ("n06596364",),
    "gerenuk": ("n02422699", "n02423022"),
    "grand_piano": ("n03452741", "n04515003"),
    "hawksbill": ("n01664065", "n01665541"),
    "ibis": ("n02006656",),
    "joshua_tree": (),
    "ketch": ("n04147183", "n04612504"),
    "lotus": (),
    "mayfly": ("n02264363",),
    "menorah": ("n02948072",),
    "minaret": ("n03788195",),
    "nautilus": ("n01968897",),
    "okapi": (),
    "pagoda": ("n04346328",),
    "pyramid": (),
    "schooner": ("n04147183", "n04612504"),
    "snoopy": ("n06596364",),
    "stegosaurus": ("n01704323",),
    "stop_sign": ("n06794110",),
    "trilobite": ("n01768244",),
    "water_lilly": (),
    "wild_cat": ("n02123159",),
    "yin_yang": (),
}
"""Caltech's classes without a THINGS concept, all few-shot tasks → ImageNet's classes that show the same or a near kin:
no training picture is of these."""


@dataclass(frozen=True)
class Photo(Item):
    """A photograph.

    Attributes:
        collection: ``imagenet``, ``caltech101`` or ``tiny``.
        row: In its collection's file.
        concept: The row of THINGS, or -1.
    """

    collection: str
    row: int
    concept: int


def split_concepts(concepts: Sequence[str], seed: int) -> dict[str, Split]:
    """Give each concept its split: ranked by the SHA-256 of ``"{seed}:{name}"``, the first quarter is held out.

    Example:
        >>> sorted(split_concepts([f"thing{k}" for k in range(20)], seed=0).values()).count("heldout")
        5
    """
    ranked = sorted(concepts, key=lambda name: rank(seed, name))
    heldout, seen = round(HELDOUT_SHARE * len(ranked)), round((HELDOUT_SHARE + VALIDATION_SHARE) * len(ranked))
    split: dict[str, Split] = dict.fromkeys(ranked, "train")
    return split | dict.fromkeys(ranked[:heldout], "heldout") | dict.fromkeys(ranked[heldout:seen], "validation")


def build_photos_world(
    out: PathLike, *, data_dir: PathLike | None = None, seed: int = 0, overwrite: bool = False
) -> EvaluationSet:
    """Write the world as an evaluation folder, with ``training.parquet``, the photographs that students learn from.

    THINGS' concepts that ImageNet or Caltech-101 has photographs of are split; a photograph goes where its concept
    goes. ImageNet's other photographs serve in training, Caltech's other classes in few-shot tasks, together with those
    of held-out concepts. Tiny-ImageNet's, where there are any, serve in training and in validation's few-shot tasks.

    Args:
        out: Where to write. If this very world is there already, it is opened and nothing is done.
        data_dir: As for ``open_photographs``.
        seed: Of splits and triplets.
        overwrite: Replace what stands at ``out``.

    Returns:
        The folder, opened: ``images.parquet``, ``items.parquet``, ``training.parquet``, three files of judgements,
        ``things2171.parquet`` and ``rdm48.parquet`` with people's own, and ``dataset.json``.

    Raises:
        LikemindError: Data are missing or odd, cannot be fetched, or ``out`` holds something else.

    Example:
        >>> build_photos_world("runs/photos/data", data_dir="photographs").description.source  # doctest: +SKIP
        'human_model'
    """
    if seed < 0:
        raise LikemindError(f"seed must be 0 or more, got {seed}: choose another")
    there = open_photographs(data_dir)
    config = {"world": "photos", "seed": seed, "trials": dict(TRIALS)}
    with Artifact(out, verb="world", config=config, inputs=_inputs(there), overwrite=overwrite) as work:
        if not work.done:
            photos = list(_photos(there, seed))
            items, training = _judged(photos, seed), _training(photos, seed)
            _write_pictures(work.path / "images.parquet", there, items)
            _write_pictures(work.path / "training.parquet", there, training)
            columns = tuple(Item.__annotations__)
            table = [{name: value for name, value in asdict(item).items() if name in columns} for item in items]
            write_table(work.path / "items.parquet", pa.Table.from_pylist(table))
            _write_answers(work.path, there, items, seed)
            write_description(work.path, _description(there, items, seed))
            work.figures |= {"items": len(items), "training": len(training)}
            work.figures["splits"] = dict(Counter(item.split for item in items))
    return EvaluationSet.load(work.out)


def _inputs(there: Photographs) -> dict[str, str]:
    paths = {name: value for name, value in asdict(there).items() if name != "licences" and value is not None}
    return {name: key_of_path(path) for name, path in paths.items()}


def _photos(there: Photographs, seed: int) -> Iterator[Photo]:
    """List all photographs; ``split`` is "" where they may not be used."""
    concepts = read_concepts(there.concepts)
    row_of = {concept["uniqueID"]: row for row, concept in enumerate(concepts)}
    tables = {"imagenet": _table(there.imagenet), "caltech101": _table(there.caltech)}
    mapped = {row["things_id"] for table in tables.values() for row in table if row["things_id"]}
    split = split_concepts(sorted(mapped), seed)
    shut = {wnid for wnids in IMAGENET_OF.values() for wnid in wnids}
    if there.tiny is not None:
        tables["tiny"] = _table(there.tiny)
    for collection, table in tables.items():
        for number, row in enumerate(table):
            named = row["things_id"]
            about = concepts[row_of[named]] if named else None
            category = named or f"{collection}/{row.get('wnid') or row['class_name']}"
            name = about["word"] if about else _plain(row["class_name"])
            found = split.get(named, "heldout" if collection == "caltech101" else "train")
            usable = row["class_name"] not in ALIKE and (found != "train" or row.get("wnid") not in shut)
            tasks = usable and found != "train" and (collection == "caltech101" or _probes(row, found))
            yield Photo(
                f"{collection}/{row['id']}",
                name,
                category,
                _group(about) if about else "",
                found if usable else "",
                found if tasks else "",
                collection,
                number,
                row_of[named] if named else -1,
            )


def _probes(row: dict[str, str], split: str) -> bool:
    """Say whether Tiny-ImageNet's photograph serves in validation's few-shot tasks."""
    return split == "validation" and row.get("split") == "val"


def _table(path: Path) -> list[dict[str, str]]:
    names = [name for name in pq.read_schema(path).names if name != "image"]
    rows: list[dict[str, str]] = pq.read_table(path, columns=names).to_pylist()
    return rows


def _plain(name: str) -> str:
    return name.split(",", maxsplit=1)[0].replace("_", " ")


def _group(concept: dict[str, str]) -> str:
    """Return the first of THINGS' categories that the concept has."""
    named = ("top_down_category_manual", "bottom_up_category", "top_down_category_wordnet", "all_bottom_up_categories")
    found = next((concept[name] for name in named if concept[name]), "")
    return found.split(",")[0].strip()


def _some(photos: Sequence[Photo], seed: int, most: dict[str, int]) -> list[Photo]:
    """Keep at most so many photographs of each category from each collection, by hash."""
    count: Counter[tuple[str, str]] = Counter()
    kept = []
    for photo in sorted(photos, key=lambda photo: rank(seed, photo.id)):
        cell = photo.collection, photo.category
        count[cell] += 1
        if count[cell] <= most.get(photo.collection, len(photos)):
            kept.append(photo)
    return sorted(kept, key=lambda photo: (photo.collection, photo.row))


def _training(photos: Sequence[Photo], seed: int) -> list[Photo]:
    return _some([photo for photo in photos if photo.split == "train"], seed, {"tiny": TRAINING_TINY})


def _judged(photos: Sequence[Photo], seed: int) -> list[Photo]:
    """Return the items: those of teaching triplets, and all of validation's and the held-out ones."""
    teaching = [photo for photo in _training(photos, seed) if photo.concept >= 0]
    taught = _some(teaching, seed, {"caltech101": TAUGHT_CALTECH, "tiny": TAUGHT_TINY})
    others = [photo for photo in photos if photo.split in ("validation", "heldout")]
    return taught + [photo for photo in others if photo.collection != "tiny" or photo.fewshot == "validation"]


def _write_pictures(path: Path, there: Photographs, photos: Sequence[Photo]) -> None:
    paths = {"imagenet": there.imagenet, "caltech101": there.caltech, "tiny": there.tiny}
    ids, pictures = [], []
    for collection, file in paths.items():
        chosen = [photo for photo in photos if photo.collection == collection]
        if file is not None and chosen:
            ids += [photo.id for photo in chosen]
            images = pq.read_table(file, columns=["image"]).column("image")
            pictures += images.take(pa.array([photo.row for photo in chosen])).to_pylist()
    write_table(path, pa.table({"id": pa.array(ids), "image": pa.array(pictures, pa.binary())}))


def _write_answers(folder: Path, there: Photographs, items: Sequence[Photo], seed: int) -> None:
    embedding = np.load(there.embedding, allow_pickle=False).astype(np.float64)
    for number, (split, n) in enumerate(TRIALS.items()):
        judged = [item for item in items if item.split == split and item.concept >= 0 and _serves(item)]
        drawn = _some(judged, seed, {"caltech101": JUDGED_CALTECH})
        answers = model_answers(drawn, embedding, n, np.random.default_rng([seed, number]))
        answers.to_parquet(folder / JUDGEMENTS[split])
    concepts = [concept["uniqueID"] for concept in read_concepts(there.concepts)]
    recorded = np.load(there.human_triplets, allow_pickle=False).astype(np.int64)
    odd = np.full(len(recorded), 2, dtype=np.int8)
    Triplets(concepts, recorded, choice=odd, source="human").to_parquet(folder / "things2171.parquet")
    rated = [concepts[row] for row in np.load(there.rdm_rows, allow_pickle=False)]
    RatingMatrix(rated, np.load(there.rdm, allow_pickle=False)).to_parquet(folder / "rdm48.parquet")


def _serves(item: Photo) -> bool:
    """Say whether an item may be judged: Tiny-ImageNet's only teach."""
    return item.collection != "tiny" or item.split == "train"


def model_answers(items: Sequence[Photo], embedding: np.ndarray, n: int, rng: np.random.Generator) -> Triplets:
    """Draw triplets of three concepts evenly, one photograph of each, and what the human embedding says of them.

    The distribution is softmax over the pairs' dot products (VICE's choice model). The level says how many groups the
    three have: three (``between_class``), two (``class_border``) or one (``within_class``).

    Args:
        items: Photographs with a concept.
        embedding: (concepts, dimensions), non-negative.
        n: Number of triplets.
        rng: Draws.
    """
    concept = np.array([item.concept for item in items])
    listed = np.argsort(concept, kind="stable")
    distinct, starts, sizes = np.unique(concept[listed], return_index=True, return_counts=True)
    if len(distinct) < 3:
        raise LikemindError(f"{len(distinct)} concepts with photographs are too few for triplets: give more")
    three = np.stack([rng.choice(len(distinct), 3, replace=False) for _ in range(n)])
    indices = listed[starts[three] + rng.integers(sizes[three])]
    similarity = pair_similarities(torch.from_numpy(embedding), torch.from_numpy(distinct[three]))
    group = np.array([item.group for item in items], dtype=object)[indices]
    return Triplets(
        [item.id for item in items],
        indices,
        probabilities=log_probabilities(similarity).exp().numpy(),
        level=np.array([_level(row) for row in group.tolist()], dtype=object),
        source="human_model",
    )


def _level(groups: list[str]) -> str:
    return {1: "within_class", 2: "class_border", 3: "between_class"}[len(set(groups))]


def _description(there: Photographs, items: Sequence[Photo], seed: int) -> Description:
    return Description(
        name="photos",
        source="human_model",
        about=(
            "The answers come from VICE, a model fitted to people's answers about all THINGS concepts, these too; "
            "not from people themselves, save where it says human."
        ),
        images="images.parquet",
        judgements=JUDGEMENTS,
        tasks="caltech101/unseen",
        answers={"things2171": "things2171.parquet"},
        ratings={"rdm48": "rdm48.parquet"},
        licences=there.licences,
        showcase=showcase(items, seed),
    )


def showcase(items: Sequence[Photo], seed: int) -> list[str]:
    """Return the ids that reports show: held-out ImageNet photographs in hash order, of different groups."""
    chosen: dict[str, str] = {}
    heldout = [item for item in items if item.split == "heldout" and item.collection == "imagenet"]
    for item in sorted(heldout, key=lambda item: rank(seed, item.id)):
        chosen.setdefault(item.group, item.id)
    return list(chosen.values())[:SHOWCASE]
