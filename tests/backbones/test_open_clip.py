from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from tiny_models import OPEN_CLIP, open_clip_folder, pixels

from likemind.backbones.timm import load_backbone, save_backbone
from likemind.errors import LikemindError
from likemind.images.decode import Preprocessing

if TYPE_CHECKING:
    from pathlib import Path

open_clip = pytest.importorskip("open_clip", reason="the extra openclip is not installed")

WORDS = torch.tensor([[1, 5, 9, 63, 0, 0, 0, 0], [7, 3, 63, 0, 0, 0, 0, 0]])


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    open_clip_folder("transformer", tmp_path / "clip")
    return tmp_path / "clip"


def run(backbone: Any) -> torch.Tensor:
    with torch.inference_mode():
        return backbone(pixels(backbone))


def one_sentence(error: pytest.ExceptionInfo[LikemindError]) -> str:
    text = str(error.value)
    assert "\n" not in text
    assert len(text) < 500
    return text


@pytest.mark.parametrize("kind", OPEN_CLIP)
def test_the_projected_embedding_is_open_clips_own(kind: str, tmp_path: Path) -> None:
    model = open_clip_folder(kind, tmp_path)
    backbone = load_backbone(str(tmp_path), layer="projected")
    with torch.inference_mode():
        torch.testing.assert_close(run(backbone), model.encode_image(pixels(backbone)), rtol=0, atol=1e-6)


@pytest.mark.parametrize("kind", OPEN_CLIP)
def test_the_pooled_one_is_what_is_projected(kind: str, tmp_path: Path) -> None:
    model = open_clip_folder(kind, tmp_path)
    backbone = load_backbone(str(tmp_path))
    rows = run(backbone)
    with torch.inference_mode():
        wanted = model.encode_image(pixels(backbone))
        if kind == "transformer":
            rows = rows @ model.visual.proj
        if kind == "timm":
            rows = model.visual.head(rows)
    torch.testing.assert_close(rows, wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("layer", ["pooled", "projected"])
@pytest.mark.parametrize("kind", OPEN_CLIP)
def test_plain_open_clip_loads_it_and_its_text_is_untouched(kind: str, layer: str, tmp_path: Path) -> None:
    before = open_clip_folder(kind, tmp_path / "a")
    backbone = load_backbone(str(tmp_path / "a"), layer=layer)
    with torch.no_grad():
        for value in backbone.module.parameters():
            value.mul_(1.1)
    save_backbone(backbone, tmp_path / "b")
    after, transform = open_clip.create_model_from_pretrained(f"local-dir:{tmp_path / 'b'}")
    assert after.state_dict().keys() == before.state_dict().keys()
    with torch.inference_mode():
        assert torch.equal(after.eval().encode_text(WORDS), before.encode_text(WORDS))
        shared = after.encode_image(pixels(backbone))
        rows = run(backbone)
        if layer == "pooled" and kind == "transformer":
            rows = rows @ before.visual.proj
        if layer == "pooled" and kind == "timm":
            rows = before.visual.head(rows)
        torch.testing.assert_close(rows, shared, rtol=0, atol=0)
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (50, 71, 3), dtype=np.uint8))
    torch.testing.assert_close(transform(picture), backbone.preprocessing(picture), rtol=0, atol=1e-6)


@pytest.mark.parametrize("mode", ["shortest", "squash"])
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
def test_pixels_are_those_of_the_library(clip: Path, mode: str, interpolation: str) -> None:
    path = clip / "open_clip_config.json"
    about = json.loads(path.read_text())
    about["preprocess_cfg"] |= {"resize_mode": mode, "interpolation": interpolation}
    path.write_text(json.dumps(about))
    recipe = load_backbone(str(clip)).preprocessing
    _, transform = open_clip.create_model_from_pretrained(f"local-dir:{clip}")
    rng = np.random.default_rng(1)
    for width, height in [(90, 60), (60, 91), (33, 47), (32, 32), (400, 301), (20, 50)]:
        picture = Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))
        torch.testing.assert_close(recipe(picture), transform(picture), rtol=0, atol=1e-6)
    about["preprocess_cfg"] |= {"resize_mode": "longest"}
    path.write_text(json.dumps(about))
    with pytest.raises(LikemindError, match=r"longest, .* pass a Preprocessing"):
        load_backbone(str(clip))
    assert load_backbone(str(clip), preprocessing=Preprocessing(size=32)).preprocessing.size == 32


def test_names_and_tags(tmp_path: Path) -> None:
    with pytest.raises(LikemindError, match=r"no model 'ViT-B-61': did you mean .*ViT-B-16"):
        load_backbone("open_clip/ViT-B-61:openai")
    with pytest.raises(LikemindError, match=r"no weights 'nobody' of ViT-B-16: known are .*openai"):
        load_backbone("open_clip/ViT-B-16:nobody")
    with pytest.raises(LikemindError, match=r"write open_clip/ViT-B-16:TAG, or pass --weights FILE"):
        load_backbone("open_clip/ViT-B-16")
    with pytest.raises(LikemindError, match="trained with QuickGELU: choose open_clip/ViT-B-16-quickgelu:openai"):
        load_backbone("open_clip/ViT-B-16:openai")
    with pytest.raises(LikemindError, match=r"holds no open_clip_config\.json"):
        load_backbone(f"open_clip/{tmp_path}")
    with pytest.raises(LikemindError, match="the network has no layer 'best'"):
        load_backbone("open_clip/ViT-S-32", weights="random", layer="best")


def test_a_tag_that_cannot_be_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError("no route to host\nand more")

    monkeypatch.setattr("open_clip.factory.download_pretrained", refuse)
    with pytest.raises(LikemindError, match=r"cannot be loaded by open_clip .*no route to host") as error:
        load_backbone("open_clip/ViT-B-32:laion2b_s34b_b79k")
    one_sentence(error)


def test_weights_of_ones_own(clip: Path, tmp_path: Path) -> None:
    first = load_backbone(str(clip))
    state = load_file(clip / "open_clip_model.safetensors")
    torch.save(state, tmp_path / "w.pt")
    for path in (clip / "open_clip_model.safetensors", tmp_path / "w.pt"):
        assert torch.equal(run(load_backbone(f"open_clip/{clip}", weights=str(path))), run(first))
    assert load_backbone(str(clip), weights="random").weights_hash != first.weights_hash
    with pytest.raises(LikemindError, match="does not exist: check --weights"):
        load_backbone(str(clip), weights="nowhere.pt")
    torch.save(
        {"state_dict": {name: value.half() for name, value in state.items()}}, clip / "open_clip_pytorch_model.bin"
    )
    (clip / "open_clip_model.safetensors").unlink()
    half = load_backbone(str(clip))
    assert {value.dtype for value in half.module.parameters()} == {torch.float32}
    (clip / "open_clip_pytorch_model.bin").unlink()
    with pytest.raises(LikemindError, match=r"holds no open_clip_model\.safetensors"):
        load_backbone(str(clip))


@pytest.mark.parametrize("change", ["missing", "strange", "short"])
def test_weights_that_do_not_fit_are_refused(clip: Path, change: str) -> None:
    path = clip / "open_clip_model.safetensors"
    state = load_file(path)
    if change == "missing":
        del state["visual.ln_post.weight"]
    elif change == "strange":
        state["surprise"] = torch.zeros(3)
    else:
        state["visual.ln_post.weight"] = torch.zeros(3)
    save_file(state, path)
    with pytest.raises(LikemindError, match="does not hold the weights of this CLIP") as error:
        load_backbone(str(clip))
    one_sentence(error)
    path.write_bytes(b"\x80nonsense")
    with pytest.raises(LikemindError, match="does not hold the weights of this CLIP") as error:
        load_backbone(str(clip))
    one_sentence(error)


class Malicious:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (f"touch {os.environ['LIKEMIND_TEST_MARK']}",)


def test_a_file_that_would_run_code_is_refused(clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIKEMIND_TEST_MARK", str(tmp_path / "mark"))
    torch.save({"state_dict": Malicious()}, tmp_path / "evil.pt")
    with pytest.raises(LikemindError, match="does not hold the weights of this CLIP"):
        load_backbone(str(clip), weights=str(tmp_path / "evil.pt"))
    assert not (tmp_path / "mark").exists()


def test_a_config_without_a_model_is_refused(clip: Path) -> None:
    for text, words in (
        ("{}", "has no model_cfg"),
        ("{", "is not valid JSON"),
        ('{"model_cfg": {}}', "cannot be loaded"),
    ):
        (clip / "open_clip_config.json").write_text(text)
        with pytest.raises(LikemindError, match=words) as error:
            load_backbone(str(clip))
        one_sentence(error)


def test_the_extra_is_named_where_it_is_missing(clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "open_clip", None)
    with pytest.raises(LikemindError, match=r"needs the package open_clip_torch: pip install 'likemind\[openclip\]'"):
        load_backbone(str(clip))
