"""Text towers in transformers' files, and where there is none. Those of open_clip: tests/alignment/test_zeroshot.py."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import textwrap
from typing import TYPE_CHECKING, Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_models import pixels, transformers_folder

from image_text import KINDS, WIDTH, image_text_folder, own_rows
from likemind.backbones.text import TextTower, text_tower
from likemind.backbones.timm import load_backbone, save_backbone
from student.hub import local_hub

if TYPE_CHECKING:
    from pathlib import Path

transformers = pytest.importorskip("transformers", reason="the extra hf is not installed")

TEXTS = ["a photo of a Cat.", "a photo of a red fox's cub, asleep.", "Category-7"]
CANONICAL = ["a photo of a cat", "a photo of a red foxs cub, asleep", "category7"]


def embed(tower: TextTower | None, texts: list[str]) -> torch.Tensor:
    assert tower is not None
    with torch.inference_mode():
        return tower.embed(texts)


@pytest.mark.parametrize("layer", ["pooled", "projected"])
@pytest.mark.parametrize("kind", KINDS)
def test_texts_and_images_lie_where_transformers_itself_puts_them(kind: str, layer: str, tmp_path: Path) -> None:
    image_text_folder(kind, tmp_path)
    backbone = load_backbone(str(tmp_path), layer=layer)
    x = pixels(backbone)
    wanted_text, wanted_image = own_rows(tmp_path, CANONICAL if kind == "SiglipModel" else TEXTS, x)
    tower = text_tower(backbone)
    torch.testing.assert_close(embed(tower, TEXTS), wanted_text, rtol=1e-5, atol=1e-5)
    assert tower is not None
    with torch.inference_mode():
        torch.testing.assert_close(tower.project(backbone(x)), wanted_image, rtol=1e-5, atol=1e-5)
    assert wanted_text.std(dim=0).min() > 0.01  # other texts, other rows
    assert wanted_text.shape[1] == wanted_image.shape[1] == (20 if kind == "CLIPModel" else WIDTH)


def test_siglips_words_are_lower_case_and_without_marks_and_clips_keep_theirs(tmp_path: Path) -> None:
    for kind in KINDS:
        image_text_folder(kind, tmp_path / kind)
    clip, siglip = (text_tower(load_backbone(str(tmp_path / kind))) for kind in KINDS)
    assert torch.equal(embed(siglip, TEXTS), embed(siglip, CANONICAL))
    assert (embed(clip, TEXTS) - embed(clip, CANONICAL)).abs().amax(dim=1).min() > 0.01
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "SiglipModel")
    assert theirs(TEXTS[0])["input_ids"] != theirs(TEXTS[0].lower())["input_ids"]  # it would not do it by itself


def test_siglips_texts_are_filled_up_at_the_end(tmp_path: Path) -> None:
    image_text_folder("SiglipModel", tmp_path)
    backbone = load_backbone(str(tmp_path))
    wanted = embed(text_tower(backbone), TEXTS)
    told = json.loads((tmp_path / "tokenizer_config.json").read_text())
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(told | {"padding_side": "left"}))
    assert torch.equal(embed(text_tower(backbone), TEXTS), wanted)


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_too_long_is_cut(kind: str, tmp_path: Path) -> None:
    image_text_folder(kind, tmp_path)
    tower = text_tower(load_backbone(str(tmp_path)))
    long = "a photo of " + "q j " * 60
    assert torch.equal(embed(tower, [long]), embed(tower, [long + "and a fox"]))


def test_clips_older_files_of_words_are_as_good(tmp_path: Path) -> None:
    image_text_folder("CLIPModel", tmp_path)
    backbone = load_backbone(str(tmp_path))
    wanted = embed(text_tower(backbone), TEXTS)
    told = json.loads((tmp_path / "tokenizer.json").read_text())["model"]
    (tmp_path / "vocab.json").write_text(json.dumps(told["vocab"]))
    (tmp_path / "merges.txt").write_text("#version: 0.2\n" + "".join(f"{a} {b}\n" for a, b in told["merges"]))
    (tmp_path / "tokenizer.json").unlink()
    assert torch.equal(embed(text_tower(backbone), TEXTS), wanted)


def test_siglips_sentencepiece_is_read(tmp_path: Path) -> None:
    spm = pytest.importorskip("sentencepiece", reason="the extra hf is not installed")
    model = image_text_folder("SiglipModel", tmp_path)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).unlink()
    how = {"vocab_size": 60, "hard_vocab_limit": False, "pad_id": 0, "eos_id": 1, "unk_id": 2, "bos_id": -1}
    spm.SentencePieceTrainer.train(
        sentence_iterator=iter(CANONICAL), model_prefix=str(tmp_path / "spiece"), minloglevel=2, **how
    )
    about = {"tokenizer_class": "SiglipTokenizer", "model_input_names": ["input_ids"], "model_max_length": 64}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(about))
    assert model.config.text_config.vocab_size >= 60
    wanted, _ = own_rows(tmp_path, TEXTS, torch.zeros(1, 3, 32, 32))
    assert wanted.std(dim=0).min() > 0.01
    torch.testing.assert_close(embed(text_tower(load_backbone(str(tmp_path))), TEXTS), wanted, rtol=1e-5, atol=1e-5)


def test_a_file_of_the_whole_models_weights_holds_its_text_tower(tmp_path: Path) -> None:
    image_text_folder("CLIPModel", tmp_path)
    state = {name: 1.1 * value for name, value in load_file(tmp_path / "model.safetensors").items()}
    save_file(state, tmp_path / "other.safetensors", metadata={"format": "pt"})
    usual, other = (
        embed(text_tower(load_backbone(str(tmp_path), weights=weights)), TEXTS)
        for weights in (None, str(tmp_path / "other.safetensors"))
    )
    (tmp_path / "other.safetensors").rename(tmp_path / "model.safetensors")
    wanted, _ = own_rows(tmp_path, TEXTS, torch.zeros(1, 3, 32, 32))
    torch.testing.assert_close(other, wanted, rtol=1e-5, atol=1e-5)
    assert (usual - other).abs().max() > 0.01


@pytest.mark.parametrize("kind", KINDS)
def test_a_tower_alone_has_no_text(kind: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    image_text_folder(kind, tmp_path / "whole")
    for layer in ("pooled", "projected"):
        save_backbone(load_backbone(str(tmp_path / "whole"), layer=layer), tmp_path / layer)
        assert text_tower(load_backbone(str(tmp_path / layer))) is None
    transformers_folder("ViTModel", tmp_path / "vit")
    assert text_tower(load_backbone(str(tmp_path / "vit"))) is None
    assert text_tower(load_backbone(str(tmp_path / "whole"), weights="random")) is None
    assert text_tower(load_backbone("timm/test_vit", weights="random")) is None
    assert not caplog.messages


def test_a_clip_saved_with_its_projection_goes_back_whole(tmp_path: Path) -> None:
    """As docs/align.md says of students aligned at ``projected``; of ``pooled``, tests/alignment/test_zeroshot.py."""
    model = image_text_folder("CLIPModel", tmp_path / "whole")
    backbone = load_backbone(str(tmp_path / "whole"), layer="projected")
    with torch.no_grad():
        for value in backbone.module.parameters():
            value.mul_(1.1)
    save_backbone(backbone, tmp_path / "student")
    tower = transformers.CLIPVisionModelWithProjection.from_pretrained(tmp_path / "student")
    told = model.load_state_dict(tower.state_dict(), strict=False)
    assert not told.unexpected_keys
    assert all(name.startswith(("text_", "logit_scale")) for name in told.missing_keys)
    x = pixels(backbone)
    with torch.inference_mode():
        torch.testing.assert_close(model.get_image_features(pixel_values=x).pooler_output, backbone(x))


def _without_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()


def _with_a_broken_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").write_text("{")


def _without_text_weights(folder: Path) -> None:
    state = load_file(folder / "model.safetensors")
    kept = {name: value for name, value in state.items() if not name.startswith("text_")}
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (_without_tokenizer, "holds no tokenizer"),
        (_with_a_broken_tokenizer, ""),
        (_without_text_weights, r"holds no whole (CLIP|Siglip)Model"),
    ],
)
def test_what_is_missing_is_logged(
    kind: str, spoil: Any, words: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    image_text_folder(kind, tmp_path)
    spoil(tmp_path)
    backbone = load_backbone(str(tmp_path))
    with caplog.at_level(logging.WARNING, logger="likemind"):
        assert text_tower(backbone) is None
    (line,) = caplog.messages
    assert line.startswith(f"no zero-shot accuracy: the text tower of {tmp_path} cannot be used (")
    assert words.partition("(")[0] in line


def test_code_beside_a_tokenizer_is_never_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_MODULES_CACHE", str(tmp_path / "modules"))
    folder = tmp_path / "clip"
    image_text_folder("CLIPModel", folder)
    (folder / "evil.py").write_text(f"open({str(tmp_path / 'mark')!r}, 'w')\nclass Evil: pass\n")
    for name in ("config.json", "tokenizer_config.json"):
        told = json.loads((folder / name).read_text())
        code = {"AutoModel": "evil.Evil", "AutoConfig": "evil.Evil", "AutoTokenizer": ["evil.Evil", "evil.Evil"]}
        (folder / name).write_text(json.dumps(told | {"auto_map": code}))
    text_tower(load_backbone(str(folder)))
    assert not (tmp_path / "mark").exists()


def test_the_fingerprint_knows_nothing_of_text(tmp_path: Path) -> None:
    image_text_folder("CLIPModel", tmp_path / "whole")
    backbone = load_backbone(str(tmp_path / "whole"))
    save_backbone(backbone, tmp_path / "tower")
    assert load_backbone(str(tmp_path / "tower")).fingerprint == backbone.fingerprint
    assert {file.name for file in (tmp_path / "tower").iterdir()} == {
        "adapter.json",
        "config.json",
        "model.safetensors",
        "preprocessor_config.json",
    }
    assert not any("text" in name for name in load_file(tmp_path / "tower" / "model.safetensors"))


def test_words_are_fetched_when_asked_for_and_of_the_same_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "snapshots" / "c0ffee"
    image_text_folder("CLIPModel", folder)
    asked: list[tuple[str | None, list[str]]] = []

    def fetch(repository: str, *, revision: str | None, allow_patterns: list[str]) -> str:
        assert repository == "somebody/clip"
        asked.append((revision, allow_patterns))
        return str(folder)

    monkeypatch.setattr("huggingface_hub.snapshot_download", fetch)
    backbone = load_backbone("hf/somebody/clip@v1")
    assert [revision for revision, _ in asked] == ["v1"]
    assert "tokenizer.json" not in asked[0][1]
    assert text_tower(backbone) is not None
    assert [revision for revision, _ in asked] == ["v1", "c0ffee"]
    assert {"tokenizer.json", "vocab.json", "merges.txt", "spiece.model", "tokenizer_config.json"} <= set(asked[1][1])


@pytest.mark.slow
def test_a_text_tower_from_a_hub(tmp_path: Path) -> None:
    """By the real client, in processes of their own: the second one without a network."""
    image_text_folder("SiglipModel", tmp_path / "theirs")
    files = {file.name: file.read_bytes() for file in (tmp_path / "theirs").iterdir()} | {"README.md": b"x"}
    code = """
        import torch
        from likemind.backbones.text import text_tower
        from likemind.backbones.timm import load_backbone
        backbone = load_backbone("hf/somebody/siglip")
        print("loaded", flush=True)
        with torch.inference_mode():
            print(text_tower(backbone).embed(["a photo of a cat."]).double().sum().item())
    """

    def run(**env: str) -> list[str]:
        at = {"HF_HOME": str(tmp_path / "home"), "HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
        done = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(code)],
            env=os.environ | at | env,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()

    with local_hub() as hub:
        hub.repositories["somebody/siglip"], hub.private["somebody/siglip"] = [("a" * 40, files)], False
        found = run(HF_ENDPOINT=hub.url, HF_HUB_OFFLINE="0")
        fetched = {path.rpartition("/")[2] for path in hub.asked if path.startswith("GET") and "/resolve/" in path}
        assert fetched == set(files) - {"README.md"}
        assert run(HF_ENDPOINT=hub.url, HF_HUB_OFFLINE="1") == found
    with torch.inference_mode():
        wanted = embed(text_tower(load_backbone(str(tmp_path / "theirs"))), ["a photo of a cat."]).double().sum()
    assert found[0] == "loaded"
    assert float(found[1]) == pytest.approx(wanted.item(), abs=1e-5)
