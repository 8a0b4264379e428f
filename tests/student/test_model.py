from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from itertools import permutations
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from safetensors.numpy import load_file, save_file
from torch import nn

from alone import without_likemind
from likemind.backbones.timm import load_backbone
from likemind.errors import LikemindError
from likemind.features.embed import embed_rows
from likemind.images.collection import open_images
from likemind.images.decode import Preprocessing
from likemind.student.model import LAYERS, AlignedModel, ModelConfig, mix

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from likemind.backbones.base import Backbone


def build(shipped: str = "mix", *, head: bool = True, beta: float = 0.3) -> AlignedModel:
    torch.manual_seed(0)
    backbone = load_backbone("test_vit", weights="random", preprocessing=Preprocessing(size=160))
    rng = np.random.default_rng(0)
    centre = rng.normal(size=backbone.dim).astype(np.float32)
    taus = {"backbone": 0.2, "head": 0.05, "shipped": 0.1} if head else {"backbone": 0.2}
    config = ModelConfig(shipped=shipped, beta=beta, alpha=0.75, temperatures=taus, facts={"base": "test_vit"})  # type: ignore[arg-type]
    if not head:
        return AlignedModel(backbone, centre, config)
    weight = rng.normal(size=(16, backbone.dim)).astype(np.float32)
    return AlignedModel(backbone, centre, config, weight, rng.normal(size=16).astype(np.float32))


@pytest.fixture(scope="module")
def model() -> AlignedModel:
    return build()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    where = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(3)
    for name in ("a.png", "b.png", "c.png", "d.png"):
        small = rng.integers(0, 256, (4, 6, 3), dtype=np.uint8)
        Image.fromarray(small).resize((90, 60), Image.Resampling.NEAREST).save(where / name)
    return where


@pytest.fixture
def saved(model: AlignedModel, tmp_path: Path) -> Path:
    model.save_pretrained(tmp_path / "m", card="# A card\n")
    return tmp_path / "m"


unit_rows = st.integers(1, 6).flatmap(
    lambda n: st.tuples(*(st.integers(0, 2**31).map(lambda s, n=n, d=d: random_unit(s, n, d)) for d in (5, 3)))
)


def random_unit(seed: int, n: int, d: int) -> np.ndarray:
    rows = np.random.default_rng(seed).normal(size=(n, d))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


@given(rows=unit_rows, beta=st.floats(0, 1))
def test_the_cosine_of_a_mix_is_the_mix_of_cosines(rows: tuple[np.ndarray, np.ndarray], beta: float) -> None:
    backbone, head = rows
    mixed = mix(backbone, head, beta)
    assert mixed.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(mixed, axis=1), 1, atol=1e-5)
    wanted = (1 - beta) * backbone @ backbone.T + beta * head @ head.T
    np.testing.assert_allclose(mixed @ mixed.T, wanted, atol=1e-5)


def test_every_layer_from_its_definition(model: AlignedModel, folder: Path) -> None:
    pooled, _ = embed_rows(open_images(folder), range(4), model.backbone)
    assert model.head_weight is not None
    centred = pooled - model.centre
    head = pooled @ model.head_weight.T + model.head_bias
    a, b = (rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (centred, head))
    for layer, wanted in (("backbone", a), ("head", b), ("shipped", mix(a, b, 0.3))):
        rows = model.encode(folder, layer=layer)
        assert rows.dtype == np.float32
        np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-5)
        np.testing.assert_allclose(rows, wanted, atol=1e-5)
    np.testing.assert_array_equal(model.encode(folder), model.encode(folder, layer="shipped"))
    similar = model.similarity(rows[:1], rows)
    assert similar.shape == (1, 4)
    assert similar[0, 0] == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("shipped", ["backbone", "head"])
def test_what_is_shipped_is_what_was_chosen(folder: Path, shipped: str) -> None:
    model = build(shipped)
    assert model.layers == LAYERS
    np.testing.assert_array_equal(model.encode(folder), model.encode(folder, layer=shipped))


def test_without_a_head_there_is_the_backbone(folder: Path, tmp_path: Path) -> None:
    model = build("backbone", head=False)
    assert model.layers == ("backbone",)
    np.testing.assert_array_equal(model.encode(folder), model.encode(folder, layer="backbone"))
    with pytest.raises(LikemindError, match="no layer 'head': choose one of backbone"):
        model.encode(folder, layer="head")
    model.save_pretrained(tmp_path / "m")
    again = AlignedModel.from_pretrained(tmp_path / "m")
    assert again.head_weight is None
    assert again.card is None
    np.testing.assert_array_equal(again.encode(folder), model.encode(folder))
    triple = [folder / name for name in ("a.png", "b.png", "c.png")]
    for layer in ("shipped", "backbone"):  # the same rows, so the same temperature
        np.testing.assert_array_equal(
            model.odd_one_out([triple], layer=layer)[1], model.odd_one_out([triple], layer="backbone")[1]
        )
    cosines = model.similarity(model.encode(triple), model.encode(triple))[[0, 0, 1], [1, 2, 2]] / 0.2
    np.testing.assert_allclose(model.odd_one_out([triple])[1][0], np.exp(cosines) / np.exp(cosines).sum(), atol=1e-4)


def test_paths_pictures_and_folders_are_the_same(model: AlignedModel, folder: Path) -> None:
    paths = sorted(folder.iterdir())
    whole = model.encode(folder)
    opened = [Image.open(path) for path in paths]
    for images in (paths, [str(path) for path in paths], tuple(opened), [paths[0], *opened[1:]], open_images(folder)):
        np.testing.assert_array_equal(model.encode(images), whole)
    arrays = [np.asarray(picture) for picture in opened]
    for images in (arrays, np.stack(arrays), (path for path in paths), dict.fromkeys(paths).keys()):
        np.testing.assert_array_equal(model.encode(images), whole)
    np.testing.assert_allclose(model.encode(paths[2:]), whole[2:], atol=1e-5)


def test_a_grey_array_is_the_grey_picture(model: AlignedModel) -> None:
    grey = np.random.default_rng(0).integers(0, 256, (40, 40), dtype=np.uint8)
    np.testing.assert_array_equal(model.encode([grey]), model.encode([Image.fromarray(grey)]))


@pytest.mark.parametrize(
    ("images", "words"),
    [
        (Image.new("RGB", (9, 9)), r"a list of images is needed, got one image: put it into \[ \]"),
        (np.zeros((9, 9, 3), np.uint8), "a list of images is needed, got one image"),
        (7, "images cannot be int: give a folder or a list"),
        ([7], "image 0 is int: give a path, a PIL image or a uint8 array"),
        ([np.zeros((9, 9, 3))], r"image 0 is float64 of shape \(9, 9, 3\): give uint8"),
        ([np.zeros((9, 9, 1), np.uint8)], r"image 0 is uint8 of shape \(9, 9, 1\): give uint8"),
        ([np.zeros(9, np.uint8)], r"image 0 is uint8 of shape \(9,\): give uint8"),
    ],
)
def test_what_is_no_list_of_images_is_told(model: AlignedModel, images: Any, words: str) -> None:
    with pytest.raises(LikemindError, match=words):
        model.encode(images)


def test_similarity_wants_rows_of_one_layer(model: AlignedModel, folder: Path) -> None:
    backbone, head = model.encode(folder, layer="backbone"), model.encode(folder, layer="head")
    for a, b in ((backbone, head), (backbone[0], backbone)):
        with pytest.raises(LikemindError, match="similarity needs rows of one layer, got "):
            model.similarity(a, b)


def test_a_key_is_of_all_that_decides(model: AlignedModel, saved: Path) -> None:
    again = AlignedModel.from_pretrained(saved)
    assert again.key == model.key
    again.config = again.config.model_copy(update={"facts": {"base": "another"}})
    assert again.key == model.key
    assert len({model.key, build("head").key, build(beta=0.4).key, build("backbone", head=False).key}) == 4


def test_a_finished_artifact_stays_as_it_is(model: AlignedModel, saved: Path) -> None:
    (saved / "run.json").write_text("{}")
    with pytest.raises(LikemindError, match="is a finished artifact and stays as it is: save to another folder"):
        model.save_pretrained(saved)


def test_a_card_is_kept(saved: Path, tmp_path: Path) -> None:
    AlignedModel.from_pretrained(saved).save_pretrained(tmp_path / "again")
    assert AlignedModel.from_pretrained(tmp_path / "again").card == "# A card\n"


def test_a_folder_has_no_revision(saved: Path) -> None:
    with pytest.raises(LikemindError, match="is a folder and has no revision 'v1': leave revision out"):
        AlignedModel.from_pretrained(saved, revision="v1")


def test_a_transparent_picture_is_seen_as_its_file_is(model: AlignedModel, tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 40, 4), dtype=np.uint8)
    picture = Image.fromarray(pixels, "RGBA")
    picture.save(tmp_path / "x.png")
    np.testing.assert_array_equal(model.encode([picture]), model.encode([tmp_path / "x.png"]))


def test_images_that_cannot_be_read_are_named(model: AlignedModel, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.png").write_bytes(b"nothing")
    with pytest.raises(LikemindError, match=r"bad\.png is not an image"):
        model.encode([folder / "a.png", tmp_path / "bad.png"])
    with pytest.raises(LikemindError, match=r"zebra\.png does not exist"):
        model.encode([tmp_path / "zebra.png"])
    with pytest.raises(LikemindError, match="no image to encode"):
        model.encode([])
    with pytest.raises(LikemindError, match="no layer 'best': choose one of backbone, head, shipped"):
        model.encode(folder, layer="best")


@pytest.mark.parametrize("layer", LAYERS)
def test_the_odd_one_out_follows_the_images(model: AlignedModel, folder: Path, layer: str) -> None:
    images = [folder / name for name in ("a.png", "b.png", "c.png")]
    orders = list(permutations(range(3)))
    odd, p = model.odd_one_out([[images[k] for k in order] for order in orders], layer=layer)
    assert odd.shape == (6,)
    np.testing.assert_allclose(p.sum(1), 1, atol=1e-6)
    pairs = ((0, 1), (0, 2), (1, 2))
    for order, position, row in zip(orders, odd, p, strict=True):
        assert order[position] == odd[0]  # the first order is 0, 1, 2
        for (i, j), value in zip(pairs, row, strict=True):
            same = pairs.index((min(order[i], order[j]), max(order[i], order[j])))
            assert value == pytest.approx(p[0][same], rel=1e-3)
    rows = model.encode(images, layer=layer).astype(float)
    logits = np.array([rows[i] @ rows[j] for i, j in pairs]) / model.config.temperatures[layer]
    np.testing.assert_allclose(p[0], np.exp(logits) / np.exp(logits).sum(), rtol=1e-3)
    assert p.std() > 0.01


@pytest.mark.parametrize("triples", [[], [["a", "b"], ["c", "d", "e", "f"]], [["a", "b"]]])
def test_odd_one_out_wants_three_a_row(model: AlignedModel, triples: Any) -> None:
    with pytest.raises(LikemindError, match="three images in every row"):
        model.odd_one_out(triples)


def test_saved_and_loaded_are_the_same_bits(model: AlignedModel, saved: Path, folder: Path) -> None:
    again = AlignedModel.from_pretrained(saved)
    assert again.config == model.config
    assert again.card == "# A card\n"
    for name in ("centre", "head_weight", "head_bias"):
        np.testing.assert_array_equal(getattr(again, name), getattr(model, name))
    assert again.backbone.fingerprint == model.backbone.fingerprint
    for layer in LAYERS:
        np.testing.assert_array_equal(again.encode(folder, layer=layer), model.encode(folder, layer=layer))
    again.save_pretrained(saved.parent / "n", card=again.card)
    for file in saved.rglob("*"):
        if file.is_file():
            assert (saved.parent / "n" / file.relative_to(saved)).read_bytes() == file.read_bytes()


PLAIN = """
    import numpy as np, timm
    from PIL import Image
    model = timm.create_model("local-dir:" + sys.argv[1], pretrained=True, num_classes=0).eval()
    transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model), is_training=False)
    with torch.inference_mode():
        np.save(sys.argv[3], model(transform(Image.open(sys.argv[2]).convert("RGB")).unsqueeze(0)).numpy())
"""


def test_plain_timm_loads_the_backbone_without_us(model: AlignedModel, saved: Path, folder: Path) -> None:
    out = saved / "out.npy"
    without_likemind(PLAIN, saved / "backbone", folder / "b.png", out, cwd=saved)
    pooled, _ = embed_rows(open_images(folder), [1], model.backbone)
    np.testing.assert_allclose(np.load(out), pooled, atol=1e-5, rtol=1e-4)
    centred = np.load(out) - model.centre
    row = model.encode([folder / "b.png"], layer="backbone")
    np.testing.assert_allclose(centred / np.linalg.norm(centred), row, atol=1e-5)


def student(backbone: Backbone) -> AlignedModel:
    rng = np.random.default_rng(0)
    centre, weight = rng.normal(size=backbone.dim), rng.normal(size=(16, backbone.dim))
    config = ModelConfig(shipped="mix", beta=0.3)
    arrays = (array.astype(np.float32) for array in (centre, weight, rng.normal(size=16)))
    centre, weight, bias = arrays
    return AlignedModel(backbone, centre, config, weight, bias)


def test_a_student_of_transformers_is_in_its_own_files(folder: Path, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers", reason="the extra hf is not installed")
    shape = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "image_size": 28, "patch_size": 7}
    torch.manual_seed(0)
    theirs = transformers.Dinov2Model(transformers.Dinov2Config(**shape))
    theirs.save_pretrained(tmp_path / "theirs")
    model = student(load_backbone(str(tmp_path / "theirs"), preprocessing=Preprocessing(size=28)))
    model.save_pretrained(tmp_path / "m")
    again = AlignedModel.from_pretrained(tmp_path / "m")
    assert again.key == model.key
    for layer in LAYERS:
        np.testing.assert_array_equal(again.encode(folder, layer=layer), model.encode(folder, layer=layer))
    plain = transformers.AutoModel.from_pretrained(tmp_path / "m" / "backbone").eval()
    with torch.inference_mode():
        pixels = torch.randn(2, 3, 28, 28)
        assert torch.equal(plain(pixel_values=pixels).pooler_output, again.backbone(pixels))
    (tmp_path / "m" / "backbone" / "model.safetensors").unlink()
    with pytest.raises(LikemindError, match="does not hold the weights of a Dinov2Model"):
        AlignedModel.from_pretrained(tmp_path / "m")


class Own(nn.Module):
    """A network of the user's."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, 6, 4, 4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return self.layers(pixels)


def test_a_student_of_a_class_of_ones_own_needs_the_class(folder: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = student(load_backbone(Own(), preprocessing=Preprocessing(size=32)))
    model.save_pretrained(tmp_path / "m")
    with pytest.raises(LikemindError, match=r"a class of your own: pass .*backbone=module"):
        AlignedModel.from_pretrained(tmp_path / "m")
    again = AlignedModel.from_pretrained(tmp_path / "m", backbone=Own())
    assert again.key == model.key
    np.testing.assert_array_equal(again.encode(folder), model.encode(folder))
    with pytest.raises(LikemindError, match=r"not of a torch\.nn\.modules\.linear\.Linear"):
        AlignedModel.from_pretrained(tmp_path / "m", backbone=nn.Linear(3, 3))


def test_a_student_that_loads_by_itself_takes_no_module(saved: Path) -> None:
    with pytest.raises(LikemindError, match="its backbone loads by itself: leave backbone out"):
        AlignedModel.from_pretrained(saved, backbone=Own())


def _head(**arrays: np.ndarray | None) -> Callable[[Path], None]:
    def change(saved: Path) -> None:
        kept = {**load_file(saved / "head.safetensors"), **arrays}
        save_file({k: v for k, v in kept.items() if v is not None}, saved / "head.safetensors")

    return change


def _json(**changes: Any) -> Callable[[Path], None]:
    def change(saved: Path) -> None:
        about = json.loads((saved / "likemind.json").read_text())
        (saved / "likemind.json").write_text(json.dumps(about | changes))

    return change


def _write(name: str, data: bytes) -> Callable[[Path], None]:
    return lambda saved: (saved / name).write_bytes(data) and None


def _remove(name: str) -> Callable[[Path], None]:
    return lambda saved: (saved / name).unlink()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (_remove("likemind.json"), r"is not an aligned model \(it has no likemind.json\)"),
        (_write("likemind.json", b"{"), "is not valid JSON"),
        (_write("likemind.json", b"[1]"), "is not of schema 1"),
        (_json(schema=2), r"is not of schema 1 \(schema\)"),
        (_json(beta=1.5), r"is not of schema 1 \(beta\)"),
        (_json(surprise=1), r"is not of schema 1 \(surprise\)"),
        (_remove("head.safetensors"), "head.safetensors cannot be read"),
        (_write("head.safetensors", b"\x80nonsense"), "head.safetensors cannot be read"),
        (_head(centre=np.zeros(3, np.float32)), "does not fit a backbone of width 64"),
        (_head(centre=None), "does not fit a backbone of width 64"),
        (_head(weight=np.zeros(64, np.float32)), "does not fit a backbone of width 64"),
        (_head(weight=np.zeros((16, 32), np.float32)), "does not fit a backbone of width 64"),
        (_head(bias=None), "does not fit a backbone of width 64"),
        (_head(bias=np.zeros(15, np.float32)), "does not fit a backbone of width 64"),
        (_head(weight=None, bias=None), "ships its mix but holds no head"),
        (_remove("backbone/config.json"), "holds no backbone/config.json"),
        (_remove("backbone/model.safetensors"), "holds no model.safetensors"),
        (_write("backbone/model.safetensors", b"\x00" * 30), "does not hold the weights of a test_vit"),
        (_write("backbone/config.json", b'{"architecture": "resnet9000"}'), "there is no backbone 'resnet9000'"),
    ],
)
def test_missing_foreign_and_damaged_files(saved: Path, change: Callable[[Path], None], words: str) -> None:
    change(saved)
    with pytest.raises(LikemindError, match=words) as told:
        AlignedModel.from_pretrained(saved)
    assert "\n" not in str(told.value)


def test_what_is_no_model(folder: Path, tmp_path: Path) -> None:
    for wrong in (folder, folder / "a.png"):
        with pytest.raises(LikemindError, match=r"is not an aligned model"):
            AlignedModel.from_pretrained(wrong)
    for name in ("somebody/no-such-model", "not a name !", str(tmp_path / "nowhere")):
        with pytest.raises(LikemindError, match="neither a folder nor to be had from the Hub") as told:
            AlignedModel.from_pretrained(name)
        assert "\n" not in str(told.value)


REFUSED = textwrap.dedent("""
    from likemind.errors import LikemindError
    from likemind.student.model import AlignedModel
    try:
        AlignedModel.from_pretrained("somebody/no-such-model")
    except LikemindError as error:
        print("said:", error)
""")


def test_the_hub_without_a_network(tmp_path: Path) -> None:
    """A port that nobody listens on, and the Hub not told to be offline."""
    environment = {**os.environ, "HF_ENDPOINT": "http://127.0.0.1:9", "HF_HUB_OFFLINE": "0", "HF_HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", REFUSED], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("said: somebody/no-such-model is neither a folder nor to be had from the Hub")
    assert done.stdout.count("\n") == 1


class FakeHub:
    def __init__(self, calls: list[tuple[Any, ...]]) -> None:
        self.calls = calls

    def create_repo(self, repo_id: str, **kwargs: Any) -> None:
        self.calls.append(("create", repo_id, kwargs))

    def upload_folder(self, *, repo_id: str, folder_path: str) -> str:
        from pathlib import Path as RealPath

        root = RealPath(folder_path)
        files = {f.relative_to(root).as_posix(): f.read_bytes() for f in root.rglob("*") if f.is_file()}
        self.calls.append(("upload", repo_id, files))
        return "https://hub/commit/1"


def test_what_is_pushed_is_what_is_saved(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    calls: list[tuple[Any, ...]] = []
    monkeypatch.setattr(huggingface_hub, "HfApi", lambda: FakeHub(calls))
    model = AlignedModel.from_pretrained(saved)
    assert model.push_to_hub("me/mine", private=True) == "https://hub/commit/1"
    created, uploaded = calls
    assert created == ("create", "me/mine", {"private": True, "exist_ok": True})
    assert uploaded[1] == "me/mine"
    wanted = {f.relative_to(saved).as_posix(): f.read_bytes() for f in saved.rglob("*") if f.is_file()}
    assert uploaded[2] == wanted
    assert set(wanted) == {
        "README.md",
        "likemind.json",
        "head.safetensors",
        "backbone/config.json",
        "backbone/model.safetensors",
    }


def test_a_hub_that_refuses_is_said_in_one_sentence(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    class Refusing(FakeHub):
        def create_repo(self, repo_id: str, **kwargs: Any) -> None:
            raise OSError("no route to host\nand more")

    monkeypatch.setattr(huggingface_hub, "HfApi", lambda: Refusing([]))
    with pytest.raises(LikemindError, match=r"me/mine cannot be uploaded \(no route to host\)"):
        AlignedModel.from_pretrained(saved).push_to_hub("me/mine")
