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
from tiny_models import FAMILIES, PROCESSORS, SIZE, pixels, transformers_folder

from alone import without_likemind
from likemind.backbones import processor
from likemind.backbones.timm import load_backbone, save_backbone
from likemind.errors import LikemindError
from likemind.images.decode import Preprocessing

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

transformers = pytest.importorskip("transformers", reason="the extra hf is not installed")


@pytest.fixture
def dinov2(tmp_path: Path) -> Path:
    transformers_folder("Dinov2Model", tmp_path / "dino")
    return tmp_path / "dino"


def run(backbone: Any) -> torch.Tensor:
    with torch.inference_mode():
        return backbone(pixels(backbone))


OWN: dict[str, tuple[str, Callable[[Any, torch.Tensor], torch.Tensor]]] = {
    "SiglipModel": ("pooled", lambda model, x: model.get_image_features(pixel_values=x).pooler_output),
    "SiglipVisionModel": ("pooled", lambda model, x: model(pixel_values=x).pooler_output),
    "CLIPModel": ("pooled", lambda model, x: model.vision_model(pixel_values=x).pooler_output),
    "CLIPVisionModelWithProjection": ("projected", lambda model, x: model(pixel_values=x).image_embeds),
    "ViTModel": ("pooled", lambda model, x: model(pixel_values=x).last_hidden_state[:, 0]),
    "ViTForImageClassification": ("pooled", lambda model, x: model.vit(pixel_values=x).last_hidden_state[:, 0]),
    "Dinov2Model": ("pooled", lambda model, x: model(pixel_values=x).pooler_output),
    "Dinov2WithRegistersModel": ("pooled", lambda model, x: model(pixel_values=x).last_hidden_state[:, 0]),
    "DINOv3ViTModel": ("pooled", lambda model, x: model(pixel_values=x).pooler_output),
}


@pytest.mark.parametrize("kind", FAMILIES)
def test_the_embedding_is_that_of_transformers_own_call(kind: str, tmp_path: Path) -> None:
    model = transformers_folder(kind, tmp_path)
    layer, call = OWN[kind]
    backbone = load_backbone(str(tmp_path), layer=layer)
    with torch.inference_mode():
        torch.testing.assert_close(run(backbone), call(model, pixels(backbone)), rtol=0, atol=1e-6)


def test_the_projected_space_is_the_one_that_text_is_in(tmp_path: Path) -> None:
    model = transformers_folder("CLIPModel", tmp_path)
    backbone = load_backbone(str(tmp_path), layer="projected")
    with torch.inference_mode():
        wanted = model.get_image_features(pixel_values=pixels(backbone)).pooler_output
    assert backbone.dim == wanted.shape[1] == 20
    torch.testing.assert_close(run(backbone), wanted, rtol=0, atol=1e-6)
    with pytest.raises(LikemindError, match="the network has no layer 'best': choose 'pooled'"):
        load_backbone(str(tmp_path), layer="best")


def test_berts_pooler_is_not_the_embedding(tmp_path: Path) -> None:
    model = transformers_folder("ViTModel", tmp_path)
    backbone = load_backbone(str(tmp_path))
    with torch.inference_mode():
        tanh = model(pixel_values=pixels(backbone)).pooler_output
    assert (run(backbone) - tanh).abs().max() > 0.1
    assert not any("pooler" in name for name in backbone.module.state_dict())


GREY_LEVEL = 1 / 255
"""DINOv3's processor keeps fractions of grey levels, where PIL rounds after scaling each side."""

SHAPES = [(90, 60), (60, 91), (33, 47), (32, 32), (400, 301), (20, 50), (501, 38)]


@pytest.mark.parametrize("kind", PROCESSORS)
def test_pixels_are_those_of_the_library(kind: str, tmp_path: Path) -> None:
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(PROCESSORS[kind]))
    recipe = processor.preprocessing_of(tmp_path)
    theirs = transformers.AutoImageProcessor.from_pretrained(tmp_path, backend="pil")
    rng = np.random.default_rng(1)
    for width, height in SHAPES:
        picture = Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))
        wanted = theirs(picture, return_tensors="pt")["pixel_values"][0]
        tolerance = GREY_LEVEL / min(recipe.std) if kind == "dinov3" else 2e-6
        torch.testing.assert_close(recipe(picture), wanted, rtol=0, atol=tolerance)


def test_a_crop_with_an_odd_margin_begins_where_transformers_begins_it(tmp_path: Path) -> None:
    (tmp_path / "preprocessor_config.json").write_text(
        json.dumps({**PROCESSORS["crop"], "size": {"shortest_edge": 35}})
    )
    theirs = transformers.AutoImageProcessor.from_pretrained(tmp_path, backend="pil")
    recipe = processor.preprocessing_of(tmp_path)
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (35, 35, 3), dtype=np.uint8))
    wanted = theirs(picture, return_tensors="pt")["pixel_values"][0]
    torch.testing.assert_close(recipe(picture), wanted, rtol=0, atol=2e-6)
    as_torchvision = recipe.model_copy(update={"half_pixel": "even"})(picture)
    assert (as_torchvision - wanted).abs().max() > 0.1
    assert "half_pixel" in recipe.model_dump()
    assert "half_pixel" not in Preprocessing(size=SIZE).model_dump(mode="json")  # so that older fingerprints hold


@pytest.mark.parametrize("scaled", range(SIZE, 300, 7))
def test_every_scaled_size_is_met(scaled: int) -> None:
    assert int(SIZE / processor.share(SIZE, scaled)) == scaled


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"do_resize": False}, "do_resize is off"),
        ({"do_rescale": False}, "do_rescale is off"),
        ({"do_pad": True}, "do_pad is on"),
        ({"rescale_factor": 1 / 127.5}, "rescale_factor is 0.0078"),
        ({"resample": 0}, "resample is 0"),
        ({"resample": 1}, "resample is 1"),
        ({"do_center_crop": False}, "nothing is cropped"),
        ({"size": {"height": 32, "width": 48}}, "size is {'height': 32, 'width': 48}"),
        ({"size": {"shortest_edge": 40, "longest_edge": 80}}, "size is {'longest_edge': 80, 'shortest_edge': 40}"),
        ({"crop_size": {"height": 30, "width": 32}}, "crop_size is"),
        ({"crop_size": 64}, "crop_size is {'height': 64, 'width': 64}"),
        ({"image_mean": [0.5]}, "mean"),
    ],
)
def test_pixels_that_we_cannot_make_are_refused(dinov2: Path, change: dict[str, Any], words: str) -> None:
    path = dinov2 / "preprocessor_config.json"
    path.write_text(json.dumps(PROCESSORS["crop"] | change))
    with pytest.raises(LikemindError, match="pass a Preprocessing") as error:
        load_backbone(str(dinov2))
    assert words in one_sentence(error)
    load_backbone(str(dinov2), preprocessing=Preprocessing(size=SIZE))


def test_without_a_processor_a_preprocessing_is_asked_for(dinov2: Path) -> None:
    path = dinov2 / "preprocessor_config.json"
    path.write_text("{")
    with pytest.raises(LikemindError, match=r"cannot be read .*pass a Preprocessing") as error:
        load_backbone(str(dinov2))
    one_sentence(error)
    path.unlink()
    with pytest.raises(LikemindError, match=r"holds no preprocessor_config\.json: pass a Preprocessing"):
        load_backbone(str(dinov2))
    plain = processor.from_fields({**PROCESSORS["vit"], "do_resize": 1, "do_rescale": 1, "do_normalize": False}, "x")
    assert (plain.mean, plain.std) == ((0, 0, 0), (1, 1, 1))


def one_sentence(error: pytest.ExceptionInfo[LikemindError]) -> str:
    text = str(error.value)
    assert "\n" not in text
    assert len(text) < 500
    return text


PLAIN = """
    import numpy as np, transformers
    from PIL import Image
    pixels, picture = torch.from_numpy(np.load("x.npy")), Image.open("x.png")
    for folder in sys.argv[1:]:
        model, told = transformers.AutoModel.from_pretrained(folder, output_loading_info=True)
        processor = transformers.AutoImageProcessor.from_pretrained(folder, backend="pil")
        with torch.inference_mode():
            found = model.eval()(pixel_values=pixels)
        seen = processor(picture, return_tensors="pt")["pixel_values"][0].numpy()
        np.savez(folder + ".npz", pooled=found.pooler_output, token=found.last_hidden_state[:, 0], seen=seen)
        print(type(model).__name__, *sorted(told["missing_keys"]), *sorted(told["unexpected_keys"]))
"""


def test_plain_transformers_loads_it_without_us(tmp_path: Path) -> None:
    kinds = ("SiglipModel", "CLIPModel", "ViTForImageClassification", "Dinov2Model", "DINOv3ViTModel")
    backbones = {}
    for kind in kinds:
        transformers_folder(kind, tmp_path / "theirs" / kind)
        backbone = backbones[kind] = load_backbone(str(tmp_path / "theirs" / kind))
        with torch.no_grad():
            for value in backbone.module.parameters():
                value.mul_(1.1)
        save_backbone(backbone, tmp_path / kind)
        names = {"config.json", "model.safetensors", "preprocessor_config.json", "adapter.json"}
        assert {file.name for file in (tmp_path / kind).iterdir()} == names
    np.save(tmp_path / "x.npy", pixels(backbones["SiglipModel"]).numpy())
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (50, 71, 3), dtype=np.uint8))
    picture.save(tmp_path / "x.png")
    assert without_likemind(PLAIN, *kinds, cwd=tmp_path) == [
        "SiglipVisionModel",
        "CLIPVisionModel",
        "ViTModel pooler.dense.bias pooler.dense.weight",  # BERT's pooler, which is no part of the embedding
        "Dinov2Model",
        "DINOv3ViTModel",
    ]
    for kind, backbone in backbones.items():
        found = np.load(tmp_path / f"{kind}.npz")
        np.testing.assert_array_equal(found["token" if "ViTFor" in kind else "pooled"], run(backbone).numpy())
        recipe = backbone.preprocessing
        tolerance = GREY_LEVEL / min(recipe.std) if kind == "DINOv3ViTModel" else 2e-6
        np.testing.assert_allclose(found["seen"], recipe(picture).numpy(), rtol=0, atol=tolerance)


@pytest.mark.parametrize("resize", ["crop", "squash"])
def test_another_preprocessing_is_in_the_saved_processor(dinov2: Path, resize: Any, tmp_path: Path) -> None:
    recipe = Preprocessing(size=24, resize=resize, crop_share=0.7, interpolation="bilinear", half_pixel="down")
    backbone = load_backbone(str(dinov2), preprocessing=recipe)
    save_backbone(backbone, tmp_path / "b")
    (tmp_path / "b" / "adapter.json").unlink()
    again = load_backbone(str(tmp_path / "b")).preprocessing
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (50, 71, 3), dtype=np.uint8))
    assert torch.equal(again(picture), recipe(picture))


OLD = {
    ".attention.q_proj.": ".attention.attention.query.",
    ".attention.k_proj.": ".attention.attention.key.",
    ".attention.v_proj.": ".attention.attention.value.",
    ".attention.o_proj.": ".attention.output.dense.",
}


@pytest.mark.parametrize("old", [False, True])
def test_old_and_new_names_of_attention_find_their_place(dinov2: Path, old: bool) -> None:
    new = load_backbone(str(dinov2))
    state = {name.removeprefix("model."): value for name, value in new.module.state_dict().items()}
    for now, then in {**OLD, "encoder.layers.": "encoder.layer."}.items() if old else ():
        state = {name.replace(now, then): value for name, value in state.items()}
    assert any("attention.attention.query" in name for name in state) == old
    assert any("attention.q_proj" in name for name in state) != old
    contiguous = {name: value.contiguous() for name, value in state.items()}
    save_file(contiguous, dinov2 / "model.safetensors", metadata={"format": "pt"})
    assert torch.equal(run(load_backbone(str(dinov2))), run(new))


def _without(*words: str) -> Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]:
    return lambda state: {name: value for name, value in state.items() if not any(word in name for word in words)}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (_without("query", "q_proj"), "lacks weights of a Dinov2Model .* they would be random"),
        (_without("layernorm."), r"lacks weights of a Dinov2Model .*layernorm\.bias"),
        (lambda state: state | {"surprise.weight": torch.zeros(3)}, r"has no place for \('surprise\.weight'\)"),
        (lambda state: {f"other.{name}": value for name, value in state.items()}, "lacks weights of a Dinov2Model"),
        (lambda state: {name: value[..., :3].clone() for name, value in state.items()}, r"holds '.*' of shape \(.*3\)"),
    ],
)
def test_weights_that_would_be_random_are_refused(dinov2: Path, change: Any, words: str) -> None:
    save_file(change(load_file(dinov2 / "model.safetensors")), dinov2 / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(LikemindError, match=words) as error:
        load_backbone(str(dinov2))
    one_sentence(error)


def test_a_classifier_a_mask_and_a_missing_mask_are_fine(dinov2: Path) -> None:
    before = run(load_backbone(str(dinov2)))
    state = load_file(dinov2 / "model.safetensors") | {"classifier.weight": torch.zeros(3, 3)}
    del state["embeddings.mask_token"]
    save_file(state, dinov2 / "model.safetensors", metadata={"format": "pt"})
    first, second = (load_backbone(str(dinov2)) for _ in range(2))
    assert torch.equal(run(first), before)
    assert first.fingerprint == second.fingerprint


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_files_become_float32(dinov2: Path, dtype: torch.dtype) -> None:
    state = {name: value.to(dtype) for name, value in load_file(dinov2 / "model.safetensors").items()}
    save_file(state, dinov2 / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((dinov2 / "config.json").read_text())
    (dinov2 / "config.json").write_text(json.dumps(config | {"dtype": str(dtype).removeprefix("torch.")}))
    backbone = load_backbone(str(dinov2))
    assert {value.dtype for value in backbone.module.state_dict().values()} == {torch.float32}
    assert run(backbone).isfinite().all()


class Malicious:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (f"touch {os.environ['LIKEMIND_TEST_MARK']}",)


def test_a_pickle_of_tensors_is_read_and_one_of_code_is_not(
    dinov2: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LIKEMIND_TEST_MARK", str(tmp_path / "mark"))
    wanted = run(load_backbone(str(dinov2)))
    state = load_file(dinov2 / "model.safetensors")
    (dinov2 / "model.safetensors").unlink()
    with pytest.raises(LikemindError, match="does not hold the weights"):
        load_backbone(str(dinov2))
    torch.save(state, dinov2 / "pytorch_model.bin")
    assert torch.equal(run(load_backbone(str(dinov2))), wanted)
    torch.save({**state, "evil": Malicious()}, dinov2 / "pytorch_model.bin")
    with pytest.raises(LikemindError, match="does not hold the weights") as error:
        load_backbone(str(dinov2))
    one_sentence(error)
    assert not (tmp_path / "mark").exists()


def test_code_of_a_repository_is_never_run(dinov2: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_MODULES_CACHE", str(tmp_path / "modules"))
    (dinov2 / "evil.py").write_text(f"open({str(tmp_path / 'mark')!r}, 'w')\nclass Evil: pass\n")
    path = dinov2 / "config.json"
    config = json.loads(path.read_text()) | {"auto_map": {"AutoModel": "evil.Evil", "AutoConfig": "evil.Evil"}}
    path.write_text(json.dumps(config))
    recipe = PROCESSORS["crop"] | {"auto_map": {"AutoImageProcessor": ["evil.Evil", "evil.Evil"]}}
    (dinov2 / "preprocessor_config.json").write_text(json.dumps(recipe))
    run(load_backbone(str(dinov2)))
    path.write_text(json.dumps(config | {"attn_implementation": "someone/kernels", "_attn_implementation": "a/b"}))
    run(load_backbone(str(dinov2)))
    assert not (tmp_path / "mark").exists()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"model_type": "bert"}, "is of the kind 'bert', which is not known here: known are clip"),
        ({"model_type": "siglip2"}, "NaFlex kind.* hf/google/siglip2-base-patch16-224"),
        ({"quantization_config": {"quant_method": "bitsandbytes"}}, "quantised weights"),
        ({"hidden_size": 64}, r"holds '.*' of shape .*, where a Dinov2Model of this config\.json has"),
        ({"num_attention_heads": 5}, r"holds '.*' of shape"),
        ({"hidden_act": "surprise"}, "does not hold the weights of a Dinov2Model"),
        ({"patch_size": 5}, r"holds 'embeddings\.patch_embeddings\..*' of shape"),
    ],
)
def test_a_config_that_is_not_known_is_refused(dinov2: Path, change: dict[str, Any], words: str) -> None:
    path = dinov2 / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(LikemindError, match=words) as error:
        load_backbone(str(dinov2))
    one_sentence(error)


def test_pictures_of_a_size_that_it_cannot_take(dinov2: Path, tmp_path: Path) -> None:
    bigger = load_backbone(str(dinov2), preprocessing=Preprocessing(size=48))
    assert run(bigger).shape == (3, bigger.dim)
    with pytest.raises(LikemindError, match="takes pictures of a multiple of 8 px, not of 50 px"):
        load_backbone(str(dinov2), preprocessing=Preprocessing(size=50))
    transformers_folder("SiglipVisionModel", tmp_path / "siglip")
    with pytest.raises(LikemindError, match="takes pictures of 32 px, not of 48 px"):
        load_backbone(str(tmp_path / "siglip"), preprocessing=Preprocessing(size=48))


def test_weights_of_ones_own(dinov2: Path, tmp_path: Path) -> None:
    first = load_backbone(str(dinov2))
    torch.manual_seed(0)
    random = load_backbone(f"hf/{dinov2}", weights="random")
    assert random.config["architecture"] == first.config["architecture"]
    assert random.weights_hash != first.weights_hash
    torch.save(load_file(dinov2 / "model.safetensors"), tmp_path / "w.bin")
    for path in (dinov2 / "model.safetensors", tmp_path / "w.bin"):
        assert torch.equal(run(load_backbone(str(dinov2), weights=str(path))), run(first))
    with pytest.raises(LikemindError, match="does not exist: check --weights"):
        load_backbone(str(dinov2), weights="nowhere.safetensors")


def test_the_fingerprint_knows_what_weights_do_not_show(dinov2: Path) -> None:
    path = dinov2 / "config.json"
    prints = {load_backbone(str(dinov2)).fingerprint}
    config = json.loads(path.read_text())
    for change in ({"num_attention_heads": 8}, {"hidden_act": "relu"}, {"layer_norm_eps": 1e-3}):
        path.write_text(json.dumps(config | change))
        prints.add(load_backbone(str(dinov2)).fingerprint)
    assert len(prints) == 4
    path.write_text(json.dumps(config | {"transformers_version": "4.0", "id2label": {"0": "a"}}))
    assert load_backbone(str(dinov2)).fingerprint in prints


def test_a_folder_needs_no_network(dinov2: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_network(*_: object, **__: object) -> None:
        raise AssertionError("the network was touched")

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("socket.socket.connect", no_network)
    run(load_backbone(str(dinov2)))
    run(load_backbone(f"hf/{dinov2}"))


def test_of_a_repository_only_what_is_needed_is_fetched(dinov2: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, str | None, list[str]]] = []

    def fetch(repository: str, *, revision: str | None, allow_patterns: list[str]) -> str:
        asked.append((repository, revision, allow_patterns))
        return str(dinov2)

    monkeypatch.setattr("huggingface_hub.snapshot_download", fetch)
    backbone = load_backbone("hf/somebody/dino@v1.2")
    assert backbone.name == "hf/somebody/dino@v1.2"
    ((repository, revision, files),) = asked
    assert (repository, revision) == ("somebody/dino", "v1.2")
    assert not any(name.endswith((".bin", ".py")) or name == "*" for name in files)
    (dinov2 / "model.safetensors").rename(dinov2 / "kept")
    with pytest.raises(LikemindError):
        load_backbone("hf/somebody/dino")
    assert [revision for _, revision, _ in asked] == ["v1.2", None, None]
    assert any(name.endswith(".bin") for name in asked[-1][2])
    load_backbone("hf/somebody/dino", weights="random")
    assert not any("safetensors" in name for name in asked[-1][2])


def test_a_repository_that_cannot_be_had(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(LikemindError, match="hf/somebody/nothing at revision 'v1' cannot be fetched") as error:
        load_backbone("hf/somebody/nothing@v1")
    one_sentence(error)
    with pytest.raises(LikemindError, match=r"config\.json does not exist"):
        load_backbone(f"hf/{tmp_path}")


def test_the_extra_is_named_where_it_is_missing(dinov2: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(LikemindError, match=r"needs the package transformers: pip install 'likemind\[hf\]'"):
        load_backbone(str(dinov2))


def test_nothing_is_printed(dinov2: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    save_backbone(load_backbone(str(dinov2)), tmp_path / "b")
    assert capfd.readouterr() == ("", "")
