"""Backbones from transformers: folders, or repositories of the Hub."""

from __future__ import annotations

import contextlib
import re
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from likemind.artifacts import read_json, write_atomic
from likemind.backbones.base import Backbone
from likemind.backbones.processor import preprocessing_of, processor_config
from likemind.backbones.saved import ADAPTER, inner, read_saved, write_saved
from likemind.backbones.weights import read_weights, reason
from likemind.errors import LikemindError, few
from likemind.hashes import key_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from likemind.images.decode import Preprocessing


@dataclass(frozen=True)
class _Family:
    """How one kind of vision model is built, and where its embedding is found.

    Attributes:
        pooled: Class of transformers, and the attribute of its output that is the embedding.
        projected: The same for the space that is shared with text.
        fixed: Whether it takes pictures of one size only.
        arguments: Of the class.
    """

    pooled: tuple[str, str]
    projected: tuple[str, str] | None = None
    fixed: bool = True
    arguments: dict[str, Any] = field(default_factory=dict)


_CLIP = _Family(("CLIPVisionModel", "pooler_output"), ("CLIPVisionModelWithProjection", "image_embeds"))
_SIGLIP = _Family(("SiglipVisionModel", "pooler_output"), ("SiglipVisionModel", "pooler_output"))
FAMILIES = {
    "clip": _CLIP,
    "clip_vision_model": _CLIP,
    "siglip": _SIGLIP,
    "siglip_vision_model": _SIGLIP,
    "vit": _Family(("ViTModel", "last_hidden_state"), arguments={"add_pooling_layer": False}),
    "dinov2": _Family(("Dinov2Model", "pooler_output"), fixed=False),
    "dinov2_with_registers": _Family(("Dinov2WithRegistersModel", "pooler_output"), fixed=False),
    "dinov3_vit": _Family(("DINOv3ViTModel", "pooler_output"), fixed=False),
}
"""By the ``model_type`` in ``config.json``."""

IMAGE_TEXT = {"clip": "CLIPModel", "siglip": "SiglipModel"}
"""Of the models that hold a text tower beside the vision tower: the class of the whole."""

_UNUSED = re.compile(
    r"(text_model|text_projection|visual_projection|logit_scale|logit_bias|classifier|decoder)\b"
    r"|(vit\.|vision_model\.)?pooler\.|.*\b(mask_token|position_ids)$"
)
"""What a file may hold beside the tower: a text tower, a classifier, a decoder of masked patches, BERT's pooler."""


class Pooled(nn.Module):
    """A model of transformers whose output is the embedding alone.

    Attributes:
        model: The model.
        output: Attribute of its output; of ``last_hidden_state``, the class token is taken.
    """

    def __init__(self, model: nn.Module, output: str) -> None:
        super().__init__()
        self.model, self.output = model, output

    def forward(self, pixels: Tensor) -> Tensor:
        """Return the embedding, (n, d), of pixels (n, 3, size, size)."""
        found: Tensor = getattr(self.model(pixel_values=pixels), self.output)
        return found[:, 0] if self.output == "last_hidden_state" else found


def load(name: str, *, weights: str | None, layer: str, preprocessing: Preprocessing | None) -> Backbone:
    """Load a vision model of transformers, or the vision tower of one.

    The embedding ``pooled`` is SigLIP's and SigLIP 2's MAP head; of DINOv2 and DINOv3 the class token after the last
    norm; of ViT the same, and not BERT's tanh pooler on top of it, which is left out; of CLIP the class token after
    ``post_layernorm``, before the projection. ``projected`` is the space shared with text, of CLIP and SigLIP (whose
    MAP head lies in it already).

    Weights become float32, whatever the file keeps. Attention is PyTorch's own. No code from the repository is run.

    Args:
        name: ``hf/ORG/NAME``, ``hf/ORG/NAME@REVISION``, or a folder.
        weights: A file of weights; ``random``; the folder's or the repository's if None.
        layer: ``pooled`` or ``projected``.
        preprocessing: Instead of that in ``preprocessor_config.json``.

    Raises:
        LikemindError: transformers is not installed, the model is of no known family, some of its weights are missing,
            or its pictures are prepared in a way that ``Preprocessing`` cannot do.
    """
    _require()
    folder = _folder(name.removeprefix("hf/"), weights)
    config = _config(folder)
    saved = read_saved(folder) if (folder / ADAPTER).exists() else None
    if saved is not None and layer == "pooled":
        layer = saved.layer
    family = FAMILIES[config["model_type"]]
    kind, output = _choose(family, layer, config["model_type"])
    with quiet():
        model = _build(folder, config, kind, family, weights)
    found = preprocessing or (saved.preprocessing if saved else preprocessing_of(folder))
    _check_size(folder, family, model.config, found)
    _still(model)
    module = Pooled(model, output).eval()
    about: dict[str, Any] = {
        "library": "transformers",
        "class": kind,
        "architecture": _architecture(kind, model.config),
        "snippet": _snippet(kind, output, family),
    }
    if config["model_type"] in IMAGE_TEXT and weights != "random":
        about["text"] = (str(folder), weights)
    if not folder_given(name):
        about["hub_id"] = name.removeprefix("hf/").partition("@")[0]
    if (folder / "preprocessor_config.json").exists():
        about["processor"] = read_json(folder / "preprocessor_config.json")
    dim = model.config.projection_dim if output == "image_embeds" else model.config.hidden_size
    return Backbone(name, module, found, int(dim), about, layer)


def save(backbone: Backbone, folder: Path) -> None:
    """Write a backbone so that ``transformers.AutoModel.from_pretrained(FOLDER)`` loads it without us."""
    model: Any = backbone.module.model
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as work, quiet():
        model.save_pretrained(work, max_shard_size="1TB")
        for path in sorted(Path(work).iterdir()):
            write_atomic(folder / path.name, path.read_bytes())
    write_atomic(folder / "preprocessor_config.json", processor_config(backbone))
    write_saved(backbone, folder)


def _require() -> None:
    try:
        import transformers  # noqa: F401
    except ImportError:
        raise LikemindError("this backbone needs the package transformers: pip install 'likemind[hf]'") from None


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silence transformers' bars and warnings: what they say is looked at and said by us."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def folder_given(name: str) -> bool:
    """Say whether a name, with or without ``hf/``, is a folder's and not a repository's."""
    plain = name.removeprefix("hf/")
    return Path(plain).is_dir() or plain.startswith((".", "/"))


def _folder(name: str, weights: str | None) -> Path:
    """Return the folder of that name, or a copy of the repository's files that are needed."""
    if folder_given(name):
        return inner(Path(name))
    repository, _, revision = name.partition("@")
    about = ["config.json", "preprocessor_config.json", "processor_config.json", ADAPTER]
    if weights is not None:
        return download(repository, revision or None, about)
    found = download(repository, revision or None, [*about, "model*.safetensors", "model.safetensors.index.json"])
    if not any(found.glob("*.safetensors")):
        found = download(repository, revision or None, [*about, "pytorch_model*.bin", "pytorch_model.bin.index.json"])
    return found


def download(repository: str, revision: str | None, files: list[str]) -> Path:
    """Fetch a repository's files of these names, and return the folder that they are in.

    Raises:
        LikemindError: They cannot be had.
    """
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(repository, revision=revision, allow_patterns=files))
    except Exception as error:  # noqa: BLE001 - the Hub's client raises whatever its HTTP library raises
        at = f" at revision {revision!r}" if revision else ""
        raise LikemindError(
            f"hf/{repository}{at} cannot be fetched ({reason(error)}): check the name and the network, or pass a folder"
        ) from None


def _config(folder: Path) -> dict[str, Any]:
    """Read a ``config.json``, and refuse what is of no family here or asks for more than weights."""
    path = folder / "config.json"
    config = read_json(path)
    kind = config.get("model_type") if isinstance(config, dict) else None
    if kind in ("siglip2", "siglip2_vision_model"):
        raise LikemindError(
            f"{path} is of SigLIP 2's NaFlex kind, which keeps each picture's own shape: choose one of a fixed size, "
            "such as hf/google/siglip2-base-patch16-224"
        )
    if not isinstance(config, dict) or kind not in FAMILIES:
        known = ", ".join(sorted(FAMILIES))
        raise LikemindError(f"{path} is of the kind {kind!r}, which is not known here: known are {known}")
    if "quantization_config" in config:
        raise LikemindError(f"{path} is of quantised weights, which cannot be trained: choose the original model")
    return config


def _choose(family: _Family, layer: str, kind: str) -> tuple[str, str]:
    if layer == "pooled":
        return family.pooled
    if layer == "projected" and family.projected is not None:
        return family.projected
    known = "'pooled'" if family.projected is None else "'pooled' or 'projected'"
    raise LikemindError(f"layer {layer!r} is not known for {kind}: choose {known}")


def _build(folder: Path, raw: dict[str, Any], kind: str, family: _Family, weights: str | None) -> Any:
    import transformers

    cls: Any = getattr(transformers, kind)
    try:
        config = cls.config_class.from_dict(raw.get("vision_config", raw))
        if weights == "random":
            config.dtype = "float32"
            return cls._from_config(config, attn_implementation="sdpa", dtype=torch.float32, **family.arguments)
        model, told = pretrained(cls, config, str(folder), weights, **family.arguments)
    except LikemindError:
        raise
    except Exception as error:  # noqa: BLE001 - on files that do not fit, transformers raises whatever it stumbles over
        raise LikemindError(
            f"{weights or folder} does not hold the weights of a {kind} ({reason(error)}): fetch it again"
        ) from None
    _check_complete(weights or str(folder), kind, told)
    return model


def pretrained(cls: Any, config: Any, folder: str, weights: str | None, **arguments: Any) -> tuple[Any, dict[str, Any]]:
    """Load a model of this class in float32 from a folder, or from a file of weights; say what found no place.

    No code in the folder is run, and nothing is fetched.
    """
    state = None if weights is None else read_weights(Path(weights))
    model, told = cls.from_pretrained(
        None if state is not None else folder,
        config=config,
        state_dict=state,
        output_loading_info=True,
        ignore_mismatched_sizes=True,
        local_files_only=True,
        trust_remote_code=False,
        weights_only=True,
        dtype=torch.float32,
        attn_implementation="sdpa",
        **arguments,
    )
    return model, told


def _check_complete(where: str, kind: str, told: dict[str, Any]) -> None:
    """Refuse a file that leaves weights at random, or whose own weights find no place."""
    missing = sorted(name for name in told["missing_keys"] if not name.endswith("mask_token"))
    if missing:
        raise LikemindError(
            f"{where} lacks weights of a {kind} ({few(missing, 3)}): they would be random; fetch it again"
        )
    if told["mismatched_keys"]:
        name, found, wanted = min(told["mismatched_keys"])
        raise LikemindError(
            f"{where} holds {name!r} of shape {tuple(found)}, where a {kind} of this config.json has {tuple(wanted)}: "
            "check that both are of the same model"
        )
    strange = sorted(name for name in told["unexpected_keys"] if not _UNUSED.match(name))
    if strange:
        raise LikemindError(
            f"{where} holds weights that a {kind} has no place for ({few(strange, 3)}): check that config.json is of "
            "the same model"
        )


def _still(model: nn.Module) -> None:
    """Keep the token of masked patches, which no picture reaches, as a constant: it is saved, and never trained."""
    for part in model.modules():
        token = part._parameters.get("mask_token")  # noqa: SLF001
        if token is not None:
            del part.mask_token
            part.register_buffer("mask_token", token.detach())


def _check_size(folder: Path, family: _Family, config: Any, recipe: Preprocessing) -> None:
    if family.fixed and recipe.size != config.image_size:
        raise LikemindError(
            f"{folder} takes pictures of {config.image_size} px, not of {recipe.size} px: pass such a Preprocessing"
        )
    if recipe.size % config.patch_size:
        raise LikemindError(
            f"{folder} takes pictures of a multiple of {config.patch_size} px, not of {recipe.size} px: pass such a "
            "Preprocessing"
        )


def _snippet(kind: str, output: str, family: _Family) -> str:
    """Return what a model card says of how to do without us."""
    options = "".join(f", {name}={value}" for name, value in family.arguments.items())
    taken = "last_hidden_state[:, 0]" if output == "last_hidden_state" else output
    return (
        f"import transformers\n\n"
        f'backbone = transformers.{kind}.from_pretrained("FOLDER/backbone"{options}).eval()\n'
        f"embedding = backbone(pixel_values=pixels).{taken}"
    )


def _architecture(kind: str, config: Any) -> str:
    """Name what decides the output beside the weights: the class, and its own fields of the configuration."""
    own = {name: getattr(config, name, None) for name in type(config).__annotations__ if not name.startswith("_")}
    plain = {name: value for name, value in own.items() if isinstance(value, (str, int, float, bool))}
    return f"transformers/{kind}/{key_of(**plain)[:16]}"
