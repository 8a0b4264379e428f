"""The data sets that models are evaluated on: what each is, where it comes from, how it lies on disk."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from likemind.datasets import imagenet as kin
from likemind.datasets.breeds import FILES, Hierarchy
from likemind.datasets.dataset import DataSet
from likemind.datasets.download import Archive, Server
from likemind.datasets.pack import read_sources
from likemind.datasets.photographs import LICENCES, check_photographs
from likemind.errors import LikemindError, few

if TYPE_CHECKING:
    from likemind.datasets.download import Source
    from likemind.datasets.labelled import Labelled

_OF_IMAGENET = "ImageNet's terms: non-commercial research"


def _berkeley(name: str, repository: str, sha256: str, size: int) -> tuple[Archive, Server]:
    server = Server("https://people.eecs.berkeley.edu/~hendrycks")
    return Archive(name, repository, "", f"{name}.tar", sha256, size), server


def _classes(found: Labelled) -> dict[str, int]:
    return {"classes": len(found.counts()), "photographs": len(found)}


class Breeds(DataSet):
    """BREEDS' class hierarchy."""

    name = "breeds"
    title = "BREEDS, class hierarchy of ImageNet: Santurkar et al. 2021, ICLR"
    licence = "none stated in the repository; derived from WordNet 3.0"
    source = "https://github.com/MadryLab/BREEDS-Benchmarks"
    version = "commit f83be50, the modified hierarchy"
    layout = ", ".join(FILES)

    @property
    def sources(self) -> list[Source]:
        """Its three files."""
        return [source for source in read_sources(all_parts=True) if source.part == "breeds"]

    @property
    def checksum(self) -> str:
        """Of each file."""
        return ", ".join(f"{Path(source.path).name} {source.sha256}" for source in self.sources)

    def check(self, folder: Path) -> dict[str, int]:
        """Count classes with a place in the tree, and nodes."""
        tree = Hierarchy.load(folder)
        return {"classes": len(tree.classes), "nodes": len(tree.levels)}


class ImageNet(DataSet):
    """ImageNet-1k."""

    name = "imagenet"
    title = "ImageNet-1k: Russakovsky et al. 2015, IJCV"
    licence = _OF_IMAGENET
    source = "https://image-net.org, with an account"
    version = "ILSVRC2012, classification"
    layout = "train/nXXXXXXXX/*.JPEG and val/nXXXXXXXX/*.JPEG, 1,000 folders each"

    def check(self, folder: Path) -> dict[str, int]:
        """Count classes, and photographs of both splits."""
        train, val = kin.imagenet(folder, "train"), kin.imagenet(folder, "val")
        return {"classes": len(train.counts()), "train": len(train), "val": len(val)}


class TinyImageNet(DataSet):
    """Tiny-ImageNet-200."""

    name = "tiny-imagenet"
    title = "Tiny-ImageNet-200, 64 × 64 pixels: Stanford CS231N"
    licence = f"none stated; {_OF_IMAGENET}"
    source = "http://cs231n.stanford.edu/tiny-imagenet-200.zip"
    version = "200 classes"
    layout = "wnids.txt, train/nXXXXXXXX/images/*.JPEG, val/images/*.JPEG, val/val_annotations.txt"

    def check(self, folder: Path) -> dict[str, int]:
        """Count classes, and photographs of both splits."""
        train, val = kin.tiny_imagenet(folder, "train"), kin.tiny_imagenet(folder, "val")
        return {"classes": len(train.counts()), "train": len(train), "val": len(val)}


class ImageNetA(DataSet):
    """ImageNet-A."""

    name = "imagenet-a"
    title = "ImageNet-A, natural adversarial examples: Hendrycks et al. 2021, CVPR"
    licence = f"MIT (the repository); photographs under {_OF_IMAGENET}"
    source = "https://github.com/hendrycks/natural-adv-examples"
    version = "7,500 photographs of 200 classes"
    layout = "nXXXXXXXX/*.jpg, 200 folders"
    archive = _berkeley(
        "imagenet-a",
        "hendrycks/natural-adv-examples",
        "3bb3632277e6ba6392ea64c02ddbf4dd2266c9caffd6bc09c9656d28f012589e",
        687_552_512,
    )

    def check(self, folder: Path) -> dict[str, int]:
        """Count classes and photographs."""
        return _classes(kin.imagenet_a(folder))


class ImageNetR(DataSet):
    """ImageNet-R."""

    name = "imagenet-r"
    title = "ImageNet-R, renditions: Hendrycks et al. 2021, ICCV"
    licence = f"MIT (the repository); pictures under {_OF_IMAGENET}"
    source = "https://github.com/hendrycks/imagenet-r"
    version = "30,000 pictures of 200 classes"
    layout = "nXXXXXXXX/*.jpg, 200 folders"
    archive = _berkeley(
        "imagenet-r",
        "hendrycks/imagenet-r",
        "18c6bf493b39a0d975d48e587437f562caab9c52ae6327dcfa9dd8eb54aa1b52",
        2_191_079_936,
    )

    def check(self, folder: Path) -> dict[str, int]:
        """Count classes and pictures."""
        return _classes(kin.imagenet_r(folder))


class ImageNetV2(DataSet):
    """ImageNet-V2."""

    name = "imagenet-v2"
    title = "ImageNet-V2, a second test set: Recht et al. 2019, ICML"
    licence = "MIT (the repository)"
    source = "the addresses in https://github.com/modestyachts/ImageNetV2"
    version = "one of matched-frequency, threshold0.7, top-images"
    layout = "0/*.jpeg … 999/*.jpeg: a folder's name is the number of its class"

    def check(self, folder: Path) -> dict[str, int]:
        """Count classes and photographs."""
        return _classes(kin.imagenet_v2(folder))


class ImageNetSketch(DataSet):
    """ImageNet-Sketch."""

    name = "imagenet-sketch"
    title = "ImageNet-Sketch: Wang et al. 2019, NeurIPS"
    licence = "MIT (the repository)"
    source = "the addresses in https://github.com/HaohanWang/ImageNet-Sketch"
    version = "1,000 classes"
    layout = "nXXXXXXXX/*.JPEG, 1,000 folders"

    def check(self, folder: Path) -> dict[str, int]:
        """Count classes and pictures."""
        return _classes(kin.imagenet_sketch(folder))


class Photographs(DataSet):
    """The photographs and human data of the demo's second world."""

    name = "photographs"
    title = "ImageNet sample, Caltech-101, THINGS concepts, VICE, 2,171 answers, ratings of 48 objects"
    licence = "; ".join(f"{what}: {text.partition(':')[0]}" for what, text in LICENCES.items())
    source = "seven GitHub repositories, as docs/data.md lists them"
    version = "3,911 files at fixed commits"
    layout = "photos/*.parquet, things/*"

    @property
    def sources(self) -> list[Source]:
        """All 3,911 files."""
        return read_sources()

    @property
    def checksum(self) -> str:
        """Of each file, too many to print."""
        return "one for each file, in likemind/datasets/tables/sources.csv.gz"

    def check(self, folder: Path) -> dict[str, int]:
        """Count the tables' rows."""
        import pyarrow.parquet as pq

        found = check_photographs(folder)
        tables = {"imagenet": found.imagenet, "caltech101": found.caltech, "tiny": found.tiny}
        return {name: pq.read_metadata(path).num_rows for name, path in tables.items() if path is not None}


class _Answers(DataSet):
    """Judgements that ``likemind judgements`` converts.

    Attributes:
        endings: Of the files that count.
    """

    endings: ClassVar[tuple[str, ...]]

    def check(self, folder: Path) -> dict[str, int]:
        """Count what its files hold."""
        if not folder.is_dir():
            raise LikemindError(f"{folder} is no folder: put {self.name} there")
        found = sorted(path for path in folder.rglob("*") if path.suffix in self.endings and path.is_file())
        if not found:
            raise LikemindError(f"{folder} holds no {' or '.join(self.endings)} file of {self.name}: put them there")
        counted = {"files": len(found)}
        for path in found:
            for what, number in self._count(path).items():
                counted[what] = counted.get(what, 0) + number
        return counted

    def _count(self, path: Path) -> dict[str, int]:  # noqa: ARG002
        return {}


class Things(_Answers):
    """THINGS' odd-one-out answers."""

    name = "things"
    title = "THINGS odd-one-out answers: Hebart et al. 2023, eLife"
    licence = "as stated at the source"
    source = "https://osf.io/n9u4a (answers) and https://doi.org/10.25452/figshare.plus.20552784 (splits)"
    version = "4.7 million answers"
    layout = "triplets_large_final_correctednc_correctedorder.csv, or trainset.txt, validationset.txt, …"
    endings = (".csv", ".txt")

    def _count(self, path: Path) -> dict[str, int]:
        with path.open("rb") as file:
            lines = sum(1 for _ in file)
        return {"answers": lines - (path.suffix == ".csv")}


class Levels(_Answers):
    """Levels."""

    name = "levels"
    title = "Levels, odd-one-out answers at three levels of abstraction: Muttenthaler et al. 2025, Nature"
    licence = "as stated at the source"
    source = "https://doi.org/10.12751/g-node.hg4tdz"
    version = "pruned_dataset.pkl"
    layout = "processed_data/pruned_dataset.pkl"
    endings = (".pkl",)

    def _count(self, path: Path) -> dict[str, int]:
        from likemind.readers.levels import read_levels

        found, _ = read_levels(path, None, None)
        people = 0 if found.participant is None else len(set(found.participant.tolist()))
        return {"answers": len(found), "people": people}


class AligNet(_Answers):
    """AligNet's labels."""

    name = "alignet"
    title = "AligNet, 10 million labelled triplets of ImageNet: Muttenthaler et al. 2025, Nature"
    licence = "as stated at the source"
    source = "https://github.com/google-deepmind/alignet, which names the addresses"
    version = "release 1.1; UD (aligned) or Untransformed (control)"
    layout = "alignet_train.npz, alignet_valid.npz"
    endings = (".npz",)

    def _count(self, path: Path) -> dict[str, int]:
        try:
            with zipfile.ZipFile(path) as archive, archive.open("similarities.npy") as file:
                np.lib.format.read_magic(file)
                shape, _, _ = np.lib.format.read_array_header_1_0(file)
        except (KeyError, ValueError, OSError, zipfile.BadZipFile) as error:
            raise LikemindError(f"{path} is not AligNet's file of triplets ({error}): fetch it again") from None
        return {"triplets": int(shape[0])}


class Nights(DataSet):
    """NIGHTS."""

    name = "nights"
    title = "NIGHTS, which of two pictures is more alike: Fu et al. 2023, NeurIPS (DreamSim)"
    licence = "as stated at the source"
    source = "https://github.com/ssundaram21/dreamsim, dataset/"
    version = "20,019 triplets"
    layout = "data.csv, ref/NNN/NNN.png, distort/NNN/NNN_0.png and NNN_1.png"

    def check(self, folder: Path) -> dict[str, int]:
        """Count triplets and pictures."""
        missing = [name for name in ("data.csv", "ref", "distort") if not (folder / name).exists()]
        if missing:
            raise LikemindError(f"{folder} lacks {few(missing)} of NIGHTS: unpack it there")
        with (folder / "data.csv").open("rb") as file:
            triplets = sum(1 for _ in file) - 1
        count = {part: sum(1 for _ in (folder / part).glob("*/*.png")) for part in ("ref", "distort")}
        if not count["distort"] / 2 == count["ref"] == triplets:
            raise LikemindError(
                f"{folder} holds {count['ref']} pictures in ref/ and {count['distort']} in distort/ for {triplets} "
                "triplets of data.csv, one and two each are meant: unpack NIGHTS again"
            )
        return {"triplets": triplets, "pictures": count["ref"] + count["distort"]}


class _Ratings(_Answers):
    """Dissimilarities of all pairs, by people."""

    licence = "ask with the data"
    version = "as its authors give it"
    layout = "matrices as .npy, .mat or .csv, which `likemind judgements` reads"
    endings = (".npy", ".mat", ".csv")


class Peterson(_Ratings):
    """Ratings of six categories."""

    name = "peterson"
    title = "Ratings of pairs in six categories of 120: Peterson, Abbott and Griffiths 2018, Cognitive Science"
    source = "the authors of the paper"


class King(_Ratings):
    """Free arrangements of two sets."""

    name = "king"
    title = "Free arrangements of two sets of photographs: King et al. 2019, NeuroImage"
    source = "the authors of the paper"


class Cichy(_Ratings):
    """Multi-arrangements of 118 objects."""

    name = "cichy118"
    title = "Multi-arrangements of 118 objects: Cichy et al. 2019, NeuroImage"
    source = "the authors of the paper"


CATALOGUE: dict[str, DataSet] = {
    made.name: made
    for made in (
        Photographs(),
        Breeds(),
        ImageNet(),
        TinyImageNet(),
        ImageNetA(),
        ImageNetR(),
        ImageNetV2(),
        ImageNetSketch(),
        Things(),
        Levels(),
        AligNet(),
        Nights(),
        Peterson(),
        King(),
        Cichy(),
    )
}
"""Name → data set."""
