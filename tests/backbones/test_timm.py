from __future__ import annotations

import json
import os
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import load_file, save_file

from alone import without_likemind
from likemind.backbones.timm import _preprocessing, load_backbone, load_weights, save_backbone
from likemind.errors import LikemindError
from likemind.images.decode import Preprocessing

if TYPE_CHECKING:
    from pathlib import Path

    from likemind.backbones.base import Backbone

NAMES = ["test_vit", "test_resnet", "test_efficientnet", "mobilenetv3_small_050"]


@pytest.fixture(scope="module")
def vit() -> Backbone:
    torch.manual_seed(0)
    return load_backbone("timm/test_vit", weights="random")


def pixels(size: int, n: int = 2) -> torch.Tensor:
    return torch.randn(n, 3, size, size, generator=torch.Generator().manual_seed(0))


def run(backbone: Backbone, n: int = 2) -> torch.Tensor:
    with torch.inference_mode():
        return backbone(pixels(backbone.preprocessing.size, n))


@pytest.mark.parametrize("name", NAMES)
def test_saved_and_loaded_is_the_same(name: str, tmp_path: Path) -> None:
    torch.manual_seed(1)
    before = load_backbone(name, weights="random")
    save_backbone(before, tmp_path / "student" / "backbone")
    for place in (tmp_path / "student" / "backbone", tmp_path / "student"):
        after = load_backbone(str(place))
        assert torch.equal(run(before), run(after))
        assert after.fingerprint == before.fingerprint
        assert after.preprocessing == before.preprocessing
    assert run(before).shape == (2, before.dim)
    assert not before.module.training


def test_dim_is_what_comes_out_even_where_timm_calls_another_number_features() -> None:
    backbone = load_backbone("mobilenetv3_small_050", weights="random")
    assert backbone.dim == run(backbone, 1).shape[1] != backbone.module.num_features


def test_the_own_preprocessing_is_timms() -> None:
    backbone = load_backbone("test_resnet", weights="random")
    data = timm.data.resolve_model_data_config(backbone.module)
    recipe = backbone.preprocessing
    assert (recipe.size, recipe.crop_share, recipe.interpolation) == (160, data["crop_pct"], data["interpolation"])
    assert (recipe.mean, recipe.std) == (data["mean"], data["std"])


@pytest.mark.parametrize(
    "recipe",
    [
        Preprocessing(size=160, resize="squash", antialias=False),
        Preprocessing(size=160, crop_share=0.9, interpolation="bilinear", mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6)),
    ],
)
def test_all_of_the_preprocessing_survives(vit: Backbone, recipe: Preprocessing, tmp_path: Path) -> None:
    changed = replace(vit, preprocessing=recipe)
    save_backbone(changed, tmp_path)
    loaded = load_backbone(str(tmp_path))
    assert loaded.preprocessing == recipe
    assert loaded.fingerprint == changed.fingerprint
    data = timm.data.resolve_model_data_config(
        timm.create_model(f"local-dir:{tmp_path}", pretrained=False, num_classes=0)
    )
    assert (data["crop_mode"] == "squash") == (recipe.resize == "squash")
    assert data["crop_pct"] == recipe.crop_share
    assert tuple(data["mean"]) == recipe.mean


PLAIN = """
    import numpy as np, timm
    model = timm.create_model("local-dir:" + sys.argv[1], pretrained=True, num_classes=0).eval()
    pixels = torch.randn(2, 3, 160, 160, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        np.save(sys.argv[2], model(pixels).numpy())
"""


def test_plain_timm_loads_it_without_us(vit: Backbone, tmp_path: Path) -> None:
    save_backbone(vit, tmp_path / "b")
    without_likemind(PLAIN, tmp_path / "b", tmp_path / "out.npy", cwd=tmp_path)
    np.testing.assert_array_equal(np.load(tmp_path / "out.npy"), run(vit).numpy())


def test_the_fingerprint_follows_weights_preprocessing_and_layer() -> None:
    torch.manual_seed(0)
    backbone = load_backbone("test_resnet", weights="random")
    prints = [
        backbone.fingerprint,
        replace(backbone, preprocessing=backbone.preprocessing.model_copy(update={"antialias": False})).fingerprint,
        replace(backbone, layer="other").fingerprint,
        replace(backbone, config=backbone.config | {"architecture": "other"}).fingerprint,
    ]
    with torch.no_grad():
        next(backbone.module.parameters()).view(-1)[0] += 1e-3
    prints.append(backbone.fingerprint)  # of the same object: what was trained is not what was loaded
    next(backbone.module.buffers()).view(-1)[0] += 1
    prints.append(backbone.fingerprint)
    assert len(set(prints)) == len(prints)
    moved = backbone.fingerprint
    backbone.module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    assert backbone.fingerprint == moved


def test_a_backbone_passes_through(vit: Backbone) -> None:
    assert load_backbone(vit) is vit


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_weights_from_a_file_without_their_classifier(vit: Backbone, suffix: str, tmp_path: Path) -> None:
    torch.manual_seed(5)
    whole = timm.create_model("test_vit", num_classes=10).eval()
    path = tmp_path / f"w{suffix}"
    save_file(whole.state_dict(), path) if suffix == ".safetensors" else torch.save(whole.state_dict(), path)
    loaded = load_backbone("timm/test_vit", weights=str(path))
    with torch.inference_mode():
        expected = whole.forward_head(whole.forward_features(pixels(160)), pre_logits=True)
    assert torch.equal(run(loaded), expected)
    save_backbone(vit, tmp_path / "b")
    assert load_backbone(str(tmp_path / "b"), weights=str(path)).weights_hash == loaded.weights_hash


def test_arguments_in_a_folder_are_kept(vit: Backbone, tmp_path: Path) -> None:
    save_backbone(vit, tmp_path / "a")
    config = json.loads((tmp_path / "a" / "config.json").read_text())
    config["model_args"] = {"act_layer": "relu", "num_classes": 3}
    (tmp_path / "a" / "config.json").write_text(json.dumps(config))
    first = load_backbone(str(tmp_path / "a"))
    assert not torch.equal(run(first), run(vit))
    assert first.fingerprint != vit.fingerprint
    save_backbone(first, tmp_path / "b")
    again = load_backbone(str(tmp_path / "b"))
    assert torch.equal(run(again), run(first))
    assert again.fingerprint == first.fingerprint


class Malicious:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (f"touch {os.environ['LIKEMIND_TEST_MARK']}",)


def test_a_file_that_would_run_code_is_refused_and_runs_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mark = tmp_path / "mark"
    monkeypatch.setenv("LIKEMIND_TEST_MARK", str(mark))
    torch.save({"weight": Malicious()}, tmp_path / "evil.pth")
    with pytest.raises(LikemindError, match="more than tensors"):
        load_backbone("test_vit", weights=str(tmp_path / "evil.pth"))
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "config.json").write_text('{"architecture": "test_vit"}')
    torch.save({"weight": Malicious()}, folder / "pytorch_model.bin")
    with pytest.raises(LikemindError, match=r"no model\.safetensors"):
        load_backbone(str(folder))
    assert not mark.exists()
    torch.load(tmp_path / "evil.pth", weights_only=False)
    assert mark.exists()  # so the file was dangerous


def one_sentence(error: pytest.ExceptionInfo[LikemindError]) -> str:
    text = str(error.value)
    assert "\n" not in text
    assert len(text) < 500
    return text


@pytest.mark.parametrize("content", [b"", b"nonsense", b"PK\x03\x04broken", b"\x80\x02}q\x00X", b"\xff" * 64])
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_damaged_weights_are_named(content: bytes, suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"broken{suffix}"
    path.write_bytes(content)
    with pytest.raises(LikemindError, match=rf"broken{suffix}") as error:
        load_backbone("test_vit", weights=str(path))
    one_sentence(error)


def test_weights_of_another_shape_are_refused(vit: Backbone, tmp_path: Path) -> None:
    save_backbone(load_backbone("test_resnet", weights="random"), tmp_path / "resnet")
    weights = tmp_path / "resnet" / "model.safetensors"
    with pytest.raises(LikemindError, match="does not fit the backbone") as error:
        load_weights(vit.module, weights)
    one_sentence(error)
    config = json.loads((tmp_path / "resnet" / "config.json").read_text()) | {"architecture": "test_vit"}
    (tmp_path / "resnet" / "config.json").write_text(json.dumps(config))
    with pytest.raises(LikemindError, match="does not hold the weights of a test_vit") as error:
        load_backbone(str(tmp_path / "resnet"))
    one_sentence(error)
    with pytest.raises(LikemindError, match="does not exist"):
        load_weights(vit.module, tmp_path / "nowhere.pth")
    for number, value in enumerate(([1, 2], torch.zeros(3), {"epoch": 3})):
        torch.save(value, tmp_path / f"{number}.pth")
        with pytest.raises(LikemindError, match="not a plain table of tensors"):
            load_weights(vit.module, tmp_path / f"{number}.pth")


def test_a_damaged_folder_is_named(vit: Backbone, tmp_path: Path) -> None:
    save_backbone(vit, tmp_path)
    weights = (tmp_path / "model.safetensors").read_bytes()
    (tmp_path / "model.safetensors").write_bytes(weights[:1000])
    with pytest.raises(LikemindError, match="save it again") as error:
        load_backbone(str(tmp_path))
    one_sentence(error)
    for config, said in (
        ("{", "not valid JSON"),
        ("[]", "names no timm architecture"),
        ('{"architecture": 3}', "names no timm"),
        ('{"architecture": "test_vit", "model_args": [1]}', "model_args is no table"),
    ):
        (tmp_path / "config.json").write_text(config)
        with pytest.raises(LikemindError, match=said):
            load_backbone(str(tmp_path))
    (tmp_path / "config.json").write_text(
        '{"architecture": "test_vit", "pretrained_cfg": {}, "preprocessing": {"size": "wide"}}'
    )
    (tmp_path / "model.safetensors").write_bytes(weights)
    with pytest.raises(LikemindError, match="preprocessing is not valid"):
        load_backbone(str(tmp_path))
    assert len(load_file(tmp_path / "model.safetensors")) == len(vit.module.state_dict())


def test_names_that_are_not_known(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def no_network(*_: object, **__: object) -> None:
        raise AssertionError("the network was touched")

    monkeypatch.setattr("socket.socket.connect", no_network)
    monkeypatch.setattr("timm.create_model", no_network)
    with pytest.raises(LikemindError, match=r"did you mean .*resnet50"):
        load_backbone("timm/resnet5O")
    with pytest.raises(LikemindError, match=r"list_models\(\) lists them"):
        load_backbone("zzzzzzzzzzzz")
    for weights in (None, "random"):
        with pytest.raises(LikemindError, match=r"vit_base_patch16_224\.foo.*known are .*vit_base_patch16_224\.mae"):
            load_backbone("timm/vit_base_patch16_224.foo", weights=weights)
    with pytest.raises(LikemindError, match="holds no backbone"):
        load_backbone(str(tmp_path))


def test_weights_that_cannot_be_had_are_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(LikemindError, match=r"weights of test_vit cannot be fetched .*--weights") as error:
        load_backbone("test_vit")
    one_sentence(error)
    unpublished = next(name for name in timm.list_models("resnet*") if not timm.is_model_pretrained(name))
    with pytest.raises(LikemindError, match="nobody has published weights"):
        load_backbone(unpublished)


@pytest.mark.parametrize(
    "change", [{"crop_mode": "border"}, {"input_size": (3, 64, 32)}, {"interpolation": "nearest"}, {"crop_pct": 1.5}]
)
def test_a_preprocessing_that_we_cannot_do_is_said(change: dict[str, Any]) -> None:
    module = timm.create_model("test_vit", num_classes=0)
    module.pretrained_cfg = module.pretrained_cfg | change
    with pytest.raises(LikemindError, match="pass a Preprocessing"):
        _preprocessing(module)
