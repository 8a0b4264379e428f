"""What holds for a backbone of whatever library."""

from __future__ import annotations

from copy import deepcopy
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from tiny_models import ADAPTERS, build, own, pixels

from likemind.alignment.trainee import Student
from likemind.backbones.timm import load_backbone, save_backbone
from likemind.backbones.user import reload
from likemind.errors import LikemindError

if TYPE_CHECKING:
    from pathlib import Path

    from likemind.backbones.base import Backbone


@pytest.fixture(scope="module", params=ADAPTERS)
def what(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def backbone(what: str, tmp_path_factory: pytest.TempPathFactory) -> Backbone:
    return build(what, tmp_path_factory.mktemp("model"))


def run(backbone: Backbone, x: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode():
        return backbone(x)


def test_one_finite_row_a_picture(backbone: Backbone) -> None:
    rows = run(backbone, pixels(backbone))
    assert rows.shape == (3, backbone.dim)
    assert rows.dtype == torch.float32
    assert rows.isfinite().all()
    assert rows.std(dim=0).max() > 0  # another picture, another row


def test_a_row_does_not_hang_on_its_neighbours(backbone: Backbone) -> None:
    x = pixels(backbone, 5)
    together = run(backbone, x)
    alone = torch.cat([run(backbone, x[k : k + 1]) for k in range(5)])
    torch.testing.assert_close(alone, together, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(run(backbone, x.flip(0)).flip(0), together, rtol=1e-4, atol=1e-5)


def test_a_student_of_it_stays_still_and_learns_everywhere(backbone: Backbone) -> None:
    module = deepcopy(backbone.module).requires_grad_(True)
    student = Student(backbone, np.zeros(backbone.dim, np.float32), None)
    student.backbone = module
    student.train()
    x = pixels(backbone)
    first = student(x)
    torch.testing.assert_close(first, run(backbone, x), rtol=1e-4, atol=1e-5)  # no dropout, no batch statistics
    torch.testing.assert_close(student(x), first, rtol=0, atol=0)
    first.square().sum().backward()
    silent = [name for name, value in module.named_parameters() if value.grad is None or not value.grad.any()]
    # a key's bias moves all scores of a query alike, so that softmax does not see it
    assert [name for name in silent if "k_proj.bias" not in name] == []
    assert all(value.grad is None or value.grad.isfinite().all() for value in module.parameters())


def test_saved_and_loaded_are_the_same_bits(what: str, backbone: Backbone, tmp_path: Path) -> None:
    with torch.no_grad():
        changed = deepcopy(backbone.module)
        for value in changed.parameters():
            value.mul_(1.01)
    trained = type(backbone)(**{**vars(backbone), "module": changed})
    assert trained.fingerprint != backbone.fingerprint
    saved = tmp_path / "student" / "backbone"
    save_backbone(trained, saved)
    again = reload(saved, own()) if what == "own" else load_backbone(str(saved))
    x = pixels(backbone)
    assert torch.equal(run(again, x), run(trained, x))
    assert again.fingerprint == trained.fingerprint
    assert (again.preprocessing, again.layer, again.dim) == (backbone.preprocessing, backbone.layer, backbone.dim)
    assert again.library == backbone.library
    save_backbone(again, tmp_path / "b")
    for file in saved.iterdir():
        assert (tmp_path / "b" / file.name).read_bytes() == file.read_bytes()
    if what == "own":
        with pytest.raises(LikemindError, match="a class of your own: pass the module"):
            load_backbone(str(tmp_path / "student"))
    else:  # the student's folder is as good as the one in it
        assert load_backbone(str(tmp_path / "student")).fingerprint == trained.fingerprint


def test_bfloat16_is_near(backbone: Backbone) -> None:
    x = pixels(backbone)
    exact = run(backbone, x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough = run(backbone, x).float()
    assert rough.isfinite().all()
    assert torch.nn.functional.cosine_similarity(exact, rough).min() > 0.99


def test_weights_are_float32(backbone: Backbone) -> None:
    assert {value.dtype for value in backbone.module.parameters()} == {torch.float32}
    assert not backbone.module.training
