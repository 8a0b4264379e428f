"""The text tower of the image–text model that a backbone came from, which alignment leaves alone."""

from __future__ import annotations

import string
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from likemind.artifacts import read_json
from likemind.backbones import open_clip as of_open_clip
from likemind.backbones import transformers as of_transformers
from likemind.backbones.weights import reason
from likemind.progress import log

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from likemind.backbones.base import Backbone

_VOCABULARIES = ("tokenizer.json", "vocab.json", "spiece.model")
_TOKENIZER = [*_VOCABULARIES, "merges.txt", "tokenizer_config.json", "special_tokens_map.json"]
_REMOVED = str.maketrans("", "", string.punctuation.replace(",", ""))


@dataclass(frozen=True, eq=False)
class TextTower:
    """What takes texts, and a backbone's output, into the space that they share.

    Attributes:
        embed: From n texts to (n, k).
        project: From the backbone's output, (n, d), to (n, k), by the projection that alignment leaves alone.
    """

    embed: Callable[[list[str]], Tensor]
    project: Callable[[Tensor], Tensor]


def text_tower(backbone: Backbone) -> TextTower | None:
    """Return the text tower of the model that a backbone came from.

    None of a backbone that came without one, such as the saved vision tower of a student. Where there is one and it
    cannot be used, for want of its tokenizer for example, that is logged.

    Example:
        >>> tower = text_tower(load_backbone("hf/openai/clip-vit-base-patch32"))  # doctest: +SKIP
        >>> tower.embed(["a photo of a cat."]).shape  # doctest: +SKIP
        torch.Size([1, 512])
    """
    try:
        if backbone.library == "open_clip":
            return _of_open_clip(backbone)
        return _of_transformers(backbone) if "text" in backbone.config else None
    except Exception as error:  # noqa: BLE001 - on files that do not fit, both libraries raise whatever they stumble over
        log.warning("no zero-shot accuracy: the text tower of %s cannot be used (%s)", backbone.name, reason(error))
        return None


def _same(pooled: Tensor) -> Tensor:
    return pooled


def _of_open_clip(backbone: Backbone) -> TextTower:
    import open_clip

    with tempfile.TemporaryDirectory() as folder:
        of_open_clip.save(backbone, Path(folder))
        model, _ = open_clip.create_model_from_pretrained(f"local-dir:{folder}")
        tokenizer = open_clip.get_tokenizer(f"local-dir:{folder}")
    visual: Any = model.eval().visual
    project: Callable[[Tensor], Tensor] = _same
    if backbone.layer == "pooled" and getattr(visual, "proj", None) is not None:
        project = visual.proj.__rmatmul__
    elif backbone.layer == "pooled" and hasattr(visual, "trunk"):
        project = visual.head
    return TextTower(lambda texts: model.encode_text(tokenizer(texts)), project)


def _of_transformers(backbone: Backbone) -> TextTower:
    import transformers

    folder, weights = backbone.config["text"]
    if "hub_id" in backbone.config:
        of_transformers.download(backbone.config["hub_id"], Path(folder).name, _TOKENIZER)
    if not any((Path(folder) / name).exists() for name in _VOCABULARIES):
        raise ValueError(f"{folder} holds no tokenizer")
    raw = read_json(Path(folder) / "config.json")
    kind = raw["model_type"]
    cls: Any = getattr(transformers, of_transformers.IMAGE_TEXT[kind])
    with of_transformers.quiet():
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        model, told = of_transformers.pretrained(cls, cls.config_class.from_dict(raw), folder, weights)
    if told["missing_keys"] or told["mismatched_keys"]:
        raise ValueError(f"{weights or folder} holds no whole {cls.__name__}")
    length = model.config.text_config.max_position_embeddings

    def embed(texts: list[str]) -> Tensor:
        asked = [_canonical(text) for text in texts] if kind == "siglip" else texts
        tokens = tokenizer(
            asked, padding="max_length", padding_side="right", truncation=True, max_length=length, return_tensors="pt"
        )
        found: Tensor = model.get_text_features(input_ids=tokens["input_ids"]).pooler_output
        return found

    del model.vision_model
    return TextTower(embed, model.visual_projection if kind == "clip" and backbone.layer == "pooled" else _same)


def _canonical(text: str) -> str:
    """Prepare a text as SigLIP's authors do (big_vision, ``prompt_engineering``); not every tokenizer does it again."""
    return " ".join(text.lower().translate(_REMOVED).split())
