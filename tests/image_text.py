"""Tiny random image–text models in transformers' files, with tokenizers of the kinds that the real ones have."""

from __future__ import annotations

import json
import string
from typing import TYPE_CHECKING, Any

import pytest
import torch

if TYPE_CHECKING:
    from pathlib import Path

SIZE, WIDTH = 32, 32
KINDS = ("CLIPModel", "SiglipModel")
_VISION = {
    "hidden_size": WIDTH,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "image_size": SIZE,
    "patch_size": 8,
}
_TEXT = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
_SEEN = {"size": {"height": SIZE, "width": SIZE}, "resample": 3, "image_mean": [0.5] * 3, "image_std": [0.4] * 3}
_READ = ["a photo of a category", "a photo of a cat", "a photo of a red fox", "a category of photo"]


def _learnt(special: list[str], suffix: str = "") -> tuple[dict[str, int], list[tuple[str, str]]]:
    """A vocabulary of pairs of letters: token → number, and what is merged."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    ends = {"end_of_word_suffix": suffix} if suffix else {}
    learner = Tokenizer(models.BPE(**ends))
    learner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    letters = [*string.ascii_lowercase, *string.ascii_uppercase, *string.digits, *string.punctuation, "▁"]
    trainer = trainers.BpeTrainer(
        vocab_size=260,
        special_tokens=special,
        initial_alphabet=letters,
        show_progress=False,
        **ends,
    )
    words = [*_READ, *letters] if suffix else ["▁".join(text.split()) for text in _READ]
    learner.train_from_iterator(words, trainer)
    told = json.loads(learner.to_str())["model"]
    return told["vocab"], [tuple(pair) for pair in told["merges"]]


def clip_tokenizer(folder: Path) -> dict[str, int]:
    """As OpenAI's: byte pairs with an end of the word. Its two ends stand last in the vocabulary, which is returned."""
    from transformers import CLIPTokenizer

    vocabulary, merges = _learnt([], "</w>")
    for end in ("<|startoftext|>", "<|endoftext|>"):
        vocabulary[end] = len(vocabulary)
    CLIPTokenizer(vocab=vocabulary, merges=merges).save_pretrained(folder)
    return vocabulary


def siglip2_tokenizer(folder: Path) -> dict[str, int]:
    """As SigLIP 2's: Gemma's, which keeps capitals, with an end and no start."""
    from tokenizers import Tokenizer, models, normalizers, processors

    vocabulary, merges = _learnt(["<pad>", "<eos>", "<bos>", "<unk>", "<mask>"])
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges, unk_token="<unk>", fuse_unk=True))
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A <eos>", special_tokens=[("<eos>", vocabulary["<eos>"])]
    )
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    about = {
        "tokenizer_class": "GemmaTokenizer",
        "model_input_names": ["input_ids"],
        "model_max_length": 64,
        "padding_side": "right",
        "add_bos_token": False,
        "add_eos_token": True,
        **{f"{name}_token": f"<{name}>" for name in ("pad", "eos", "bos", "unk", "mask")},
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(about))
    return vocabulary


def image_text_folder(kind: str, folder: Path) -> Any:
    """Save a tiny model with its tokenizer and its image processor; return it."""
    transformers = pytest.importorskip("transformers", reason="the extra hf is not installed")
    if kind == "CLIPModel":
        vocabulary = clip_tokenizer(folder)
        ends = {"bos_token_id": vocabulary["<|startoftext|>"], "eos_token_id": vocabulary["<|endoftext|>"]}
        config = transformers.CLIPConfig(
            text_config={**_TEXT, **ends, "vocab_size": len(vocabulary), "max_position_embeddings": 77},
            vision_config={**_VISION, "projection_dim": 20},
            projection_dim=20,
        )
    else:
        vocabulary = siglip2_tokenizer(folder)
        ends = {f"{name}_token_id": vocabulary[f"<{name}>"] for name in ("pad", "bos", "eos")}
        text = {**_TEXT, **ends, "vocab_size": len(vocabulary), "max_position_embeddings": 64, "projection_size": WIDTH}
        config = transformers.SiglipConfig(text_config=text, vision_config=_VISION)
    torch.manual_seed(5)
    model = getattr(transformers, kind)(config).eval()
    with torch.no_grad():
        for value in model.parameters():
            value.add_(
                (0.1 if kind == "CLIPModel" else 0.5) * torch.randn(value.shape)
            )  # images differ in their answer
    model.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(
        json.dumps({"image_processor_type": kind.replace("Model", "ImageProcessor"), "do_center_crop": False, **_SEEN})
    )
    return model


def own_rows(folder: Path, texts: list[str], pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Embeddings of texts and of images by transformers alone, called as its documentation says."""
    import transformers

    model = transformers.AutoModel.from_pretrained(folder).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    siglip = type(model).__name__ == "SiglipModel"
    how: dict[str, Any] = {"padding": "max_length", "max_length": 64} if siglip else {"padding": True}
    with torch.inference_mode():
        text = model.get_text_features(**tokenizer(texts, return_tensors="pt", **how)).pooler_output
        image = model.get_image_features(pixel_values=pixels).pooler_output
    return text, image
