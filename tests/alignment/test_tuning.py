"""What learns: all weights, a few beside them, or the head alone; and what comes out is a plain backbone each time."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from alone import without_likemind
from evaluation.conftest import make_data
from likemind.alignment.align import align
from likemind.alignment.known import Known
from likemind.alignment.trainee import Student, student_loss
from likemind.alignment.trainer import Running, Trainer
from likemind.backbones.timm import load_backbone
from likemind.features.embed import embed
from likemind.images.decode import Preprocessing

from .conftest import made_teacher, quick

if TYPE_CHECKING:
    from pathlib import Path

    from likemind.backbones.base import Backbone
    from likemind.datasets.evaluation_set import EvaluationSet
    from likemind.features.store import FeatureStore
    from likemind.images.collection import ImageCollection
    from likemind.student.model import AlignedModel

pytest.importorskip("peft", reason="the extra lora is not installed")


@dataclass
class Transformers:
    """A tiny vision transformer of each library, its features, and a teacher of each."""

    place: Path
    data: EvaluationSet
    images: ImageCollection
    backbones: dict[str, Backbone]
    features: dict[str, FeatureStore]

    def align(self, library: str, out: Path, **changes: Any) -> AlignedModel:
        given = {"teacher": self.place / f"{library}-teacher", "features": self.features[library].path}
        return align(self.images, self.backbones[library], out=out, recipe=quick(**changes), **given)

    def known(self, library: str, folder: Path) -> Known:
        from likemind.teacher.teacher import Teacher

        teacher = Teacher.load(self.place / f"{library}-teacher")
        return Known(folder, self.images, self.backbones[library], teacher, None, self.features[library], False, 0)


@pytest.fixture(scope="module")
def vits(tmp_path_factory: pytest.TempPathFactory) -> Transformers:
    transformers = pytest.importorskip("transformers", reason="the extra hf is not installed")
    place = tmp_path_factory.mktemp("vits")
    torch.manual_seed(0)
    shape = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "image_size": 32, "patch_size": 8}
    transformers.Dinov2Model(transformers.Dinov2Config(**shape)).save_pretrained(place / "theirs")
    backbones = {
        "timm": load_backbone("timm/test_vit", weights="random"),
        "transformers": load_backbone(str(place / "theirs"), preprocessing=Preprocessing(size=32)),
    }
    data = make_data(place / "data")
    images = data.images().select([item.id for item in data.select("train")])
    features = {}
    for name, backbone in backbones.items():
        features[name] = embed(images, backbone, out=place / f"{name}-features")
        made_teacher(place / f"{name}-teacher", features[name])
    return Transformers(place, data, images, backbones, features)


PLAIN = {
    "timm": 'timm.create_model("local-dir:" + sys.argv[1], pretrained=True, num_classes=0).eval()(pixels)',
    "transformers": "transformers.AutoModel.from_pretrained(sys.argv[1]).eval()(pixel_values=pixels).pooler_output",
}
FORWARD = """
    import numpy as np, LIBRARY
    pixels = torch.from_numpy(np.load(sys.argv[2]))
    with torch.inference_mode():
        np.save(sys.argv[3], (EXPRESSION).numpy())
"""


@pytest.mark.parametrize("library", ["timm", "transformers"])
@pytest.mark.parametrize(
    "changes",
    [
        {"tuning": "lora", "rank": 2},
        {"tuning": "lora", "rank": 4, "target": "paper", "head": "random", "temperature": 5.0},
        {"tuning": "head", "target": "paper", "head": "random", "temperature": 5.0},
    ],
)
def test_it_loads_in_its_own_library_without_likemind(
    vits: Transformers, tmp_path: Path, library: str, changes: dict[str, Any]
) -> None:
    base = vits.backbones[library]
    model = vits.align(library, tmp_path / "m", learning_rate=1e-2, **changes)
    size = base.preprocessing.size
    pixels = torch.randn(3, 3, size, size, generator=torch.Generator().manual_seed(0))
    np.save(tmp_path / "pixels.npy", pixels.numpy())
    code = FORWARD.replace("LIBRARY", library).replace("EXPRESSION", PLAIN[library])
    files = [tmp_path / "m" / "backbone", tmp_path / "pixels.npy", tmp_path / "out.npy"]
    without_likemind(code, *files, cwd=tmp_path)
    with torch.inference_mode():
        ours, before = model.backbone(pixels).numpy(), base(pixels).numpy()
    np.testing.assert_allclose(np.load(tmp_path / "out.npy"), ours, rtol=1e-4, atol=1e-5)
    if changes["tuning"] == "head":
        assert model.backbone.weights_hash == base.weights_hash
    else:
        assert np.abs(ours - before).max() > 1e-3
    assert (model.head_weight is None) == (
        changes.get("target") is None and not vits.known(library, tmp_path).own_teacher
    )


def test_of_lora_few_numbers_learn_and_alpha_is_a_line(vits: Transformers, tmp_path: Path) -> None:
    known, base = vits.known("timm", tmp_path), vits.backbones["timm"]
    recipe = quick(tuning="lora", rank=2, learning_rate=1e-2)
    student = Student.start(base, known, recipe, 0)
    assert all("lora_" in name for name in student.learning)
    trainer = Trainer(student, known, recipe, Running())
    for step in range(3):
        batch = known.batch(recipe, 0, step)
        pixels = torch.stack([base.preprocessing(known.images.read(int(k))) for k in batch.images])
        trainer.step(batch, pixels, 1.0, what="")
    with torch.inference_mode():
        trained = student(pixels).numpy()
    models = [student.at(alpha).backbone for alpha in (0.0, 0.5, 1.0)]
    assert models[0].weights_hash == base.weights_hash
    with torch.inference_mode():
        np.testing.assert_allclose(models[2](pixels).numpy(), trained, atol=1e-4)
    for first, half, last in zip(*(one.module.parameters() for one in models), strict=True):
        torch.testing.assert_close(half, (first + last) / 2, atol=1e-6, rtol=1e-5)
    assert all(key.find("lora") < 0 for key in models[2].module.state_dict())


def test_the_head_alone_is_learned_from_features(
    vits: Transformers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No image is read; and it is the gradient that it would be with one."""
    known, recipe = vits.known("timm", tmp_path), quick(tuning="head", target="paper", head="random", temperature=5.0)
    student = Student.start(vits.backbones["timm"], known, recipe, 0)
    assert set(student.learning) == {"head.weight", "head.bias"}
    batch = known.batch(recipe, 0, 0)
    trainer = Trainer(student, known, recipe, Running())
    trainer.gradients(batch, None, what="")
    assert student.head is not None
    ours = student.head.weight.grad
    assert ours is not None
    pixels = torch.stack([known.backbone.preprocessing(known.images.read(int(k))) for k in batch.images])
    loss = student_loss(student, student(pixels), batch, known, recipe)["loss"]
    (theirs,) = torch.autograd.grad(loss, student.head.weight)
    torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-6)

    model = vits.align(
        "timm", tmp_path / "m", **recipe.model_dump(exclude={"precision"}) | {"head_learning_rate": 1e-3}
    )
    lines = [json.loads(line) for line in (tmp_path / "m" / "metrics.jsonl").read_text().splitlines()]
    assert lines[-1]["loss"] < lines[0]["loss"]
    assert model.head_weight is not None
    monkeypatch.setattr(type(vits.images), "read", lambda *_: pytest.fail("read an image"))
    again = vits.align(
        "timm", tmp_path / "n", **recipe.model_dump(exclude={"precision"}) | {"head_learning_rate": 1e-3}
    )
    np.testing.assert_array_equal(again.head_weight, model.head_weight)
