from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_models import Own, own, pixels
from torch import nn

from likemind.backbones.timm import load_backbone, save_backbone
from likemind.backbones.user import reload
from likemind.errors import LikemindError
from likemind.images.decode import Preprocessing

if TYPE_CHECKING:
    from pathlib import Path

RECIPE = Preprocessing(size=32, resize="squash", antialias=False)


class Wrong(nn.Module):
    def __init__(self, result: object) -> None:
        super().__init__()
        self.result = result

    def forward(self, pixels: torch.Tensor) -> object:
        if isinstance(self.result, Exception):
            raise self.result
        return self.result


def test_a_module_is_its_own_embedding() -> None:
    module = own()
    backbone = load_backbone(module, preprocessing=RECIPE)
    assert backbone.module is module
    assert (backbone.dim, backbone.library, backbone.name) == (5, "module", "tiny_models.Own")
    with torch.inference_mode():
        assert torch.equal(backbone(pixels(backbone)), module(pixels(backbone)))


def test_what_is_no_backbone_is_told() -> None:
    with pytest.raises(LikemindError, match=r"tiny_models\.Own is not known: pass preprocessing=Preprocessing"):
        load_backbone(own())
    with pytest.raises(LikemindError, match="the network has no layer 'head'"):
        load_backbone(own(), preprocessing=RECIPE, layer="head")
    for result, words in (
        (torch.zeros(2, 3, 4), r"gives \(2, 3, 4\) for two pictures"),
        (torch.zeros(1, 3), r"gives \(1, 3\) for two pictures"),
        (torch.zeros(2, 3, dtype=torch.long), "not one row of numbers each"),
        ({"x": 1}, "gives dict for two pictures"),
        (RuntimeError("bad\nsize"), r"does not take pixels of shape \(2, 3, 32, 32\) \(bad size\)"),
    ):
        with pytest.raises(LikemindError, match=words) as error:
            load_backbone(Wrong(result), preprocessing=RECIPE)
        assert "\n" not in str(error.value)


def test_it_is_filled_from_a_file(tmp_path: Path) -> None:
    save_file(own().state_dict(), tmp_path / "w.safetensors")
    backbone = load_backbone(Own(), preprocessing=RECIPE, weights=str(tmp_path / "w.safetensors"))
    assert backbone.weights_hash == load_backbone(own(), preprocessing=RECIPE).weights_hash
    save_file({"last.bias": torch.zeros(5)}, tmp_path / "w.safetensors")
    with pytest.raises(LikemindError, match=r"does not fit tiny_models\.Own") as error:
        load_backbone(Own(), preprocessing=RECIPE, weights=str(tmp_path / "w.safetensors"))
    assert "\n" not in str(error.value)


def test_it_is_saved_as_weights_and_a_name(tmp_path: Path) -> None:
    backbone = load_backbone(own(), preprocessing=RECIPE)
    save_backbone(backbone, tmp_path / "b")
    assert {file.name for file in (tmp_path / "b").iterdir()} == {"model.safetensors", "adapter.json"}
    about = json.loads((tmp_path / "b" / "adapter.json").read_text())
    assert about["architecture"] == "tiny_models.Own"
    empty = Own()
    before = {name: value.clone() for name, value in empty.state_dict().items()}
    again = reload(tmp_path / "b", empty)
    assert again.fingerprint == backbone.fingerprint
    assert again.preprocessing == RECIPE
    assert all(torch.equal(value, before[name]) for name, value in empty.state_dict().items())  # a copy was filled
    assert load_file(tmp_path / "b" / "model.safetensors").keys() == before.keys()
    with pytest.raises(LikemindError, match=r"weights of tiny_models\.Own, a class of your own: pass the module"):
        load_backbone(str(tmp_path / "b"))
    with pytest.raises(LikemindError, match=r"is of a tiny_models\.Own, not of a torch\.nn\.modules\.linear\.Linear"):
        reload(tmp_path / "b", nn.Linear(2, 2))
    (tmp_path / "b" / "adapter.json").write_text(json.dumps(about | {"library": "surprise"}))
    with pytest.raises(LikemindError, match=r"adapter\.json is not valid \(library\): save the backbone again"):
        load_backbone(str(tmp_path / "b"))
