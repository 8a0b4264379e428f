"""The aligned model: a backbone that plain timm can load, a triplet head, and the one embedding that is shipped."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from likemind.artifacts import PathLike, read_json, write_atomic, write_json
from likemind.backbones.timm import load_backbone, save_backbone
from likemind.choice import ODD_OF_PAIR, log_probabilities, pair_similarities
from likemind.errors import LikemindError, first_line
from likemind.features.embed import embed_rows
from likemind.images.collection import ImageCollection, open_images

if TYPE_CHECKING:
    from collections.abc import Sequence

    from PIL import Image

    from likemind.backbones.base import Backbone

Picture = "PathLike | Image.Image"
LAYERS = ("backbone", "head", "shipped")


class ModelConfig(BaseModel):
    """``likemind.json``: all that the host library's own files do not say.

    Attributes:
        shipped: What ``encode`` returns by default: ``backbone``, ``head`` or their ``mix``.
        beta: Share of the head in the mix.
        alpha: Interpolation of the weights between the base (0) and the fully aligned student (1).
        temperatures: Layer → τ fitted on validation judgements; cosine / τ are the logits of a choice.
        facts: What was trained on what; licences.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_: Literal[1] = Field(default=1, alias="schema")
    shipped: Literal["backbone", "head", "mix"] = "backbone"
    beta: float = Field(default=0.0, ge=0, le=1)
    alpha: float = 1.0
    temperatures: dict[str, float] = {}
    facts: dict[str, Any] = {}


@dataclass(eq=False)
class AlignedModel:
    """A vision model with a human sense of similarity.

    Attributes:
        backbone: The network; plain timm loads it from ``DIR/backbone``.
        centre: (d,) mean of the backbone's output over the training images, taken off before cosines.
        config: What is shipped, and its temperature.
        head_weight: (k, d), or None without a triplet head. head_bias: (k,).
        card: The model card that it was saved with.

    Example:
        >>> model = AlignedModel.from_pretrained("runs/demo/aligned")  # doctest: +SKIP
        >>> a, b = model.encode(["lizard.png"]), model.encode(["leaf.png", "snake.png"])  # doctest: +SKIP
        >>> model.similarity(a, b)  # doctest: +SKIP
        array([[0.11, 0.43]], dtype=float32)
    """

    backbone: Backbone
    centre: np.ndarray
    config: ModelConfig = field(default_factory=ModelConfig)
    head_weight: np.ndarray | None = None
    head_bias: np.ndarray | None = None
    card: str | None = None

    @property
    def layers(self) -> tuple[str, ...]:
        """The layers that this model has; without a head nothing differs from ``backbone``."""
        return LAYERS if self.head_weight is not None else ("backbone",)

    def embeddings(self, pooled: np.ndarray) -> dict[str, np.ndarray]:
        """Return every layer's embedding from the backbone's pooled output.

        Shapes:
            pooled: (n, d). Returns layer → (n, ·) float32, rows of unit length.
        """
        rows = {"backbone": unit(pooled - self.centre)}
        if self.head_weight is None or self.head_bias is None:
            return rows
        rows["head"] = unit(pooled @ self.head_weight.T + self.head_bias)
        mixes = {"backbone": 0.0, "head": 1.0, "mix": self.config.beta}
        return rows | {"shipped": mix(rows["backbone"], rows["head"], mixes[self.config.shipped])}

    def encode(self, images: PathLike | ImageCollection | Sequence[Any], *, layer: str = "shipped") -> np.ndarray:
        """Embed images.

        Args:
            images: A folder, tar or Parquet file, or a sequence of paths and PIL images.
            layer: ``shipped``, ``backbone`` or ``head``.

        Returns:
            (n, d) float32, rows of unit length.

        Raises:
            LikemindError: An image cannot be read, or there is no such layer.
        """
        if layer not in LAYERS or (layer == "head" and self.head_weight is None):
            raise LikemindError(f"this model has no layer {layer!r}: choose one of {', '.join(self.layers)}")
        pictures = _Pictures(images) if isinstance(images, (list, tuple)) else open_images(images)  # type: ignore[arg-type]
        if not len(pictures):
            raise LikemindError("there is no image to encode: give at least one")
        pooled, _ = embed_rows(pictures, range(len(pictures)), self.backbone)
        return self.embeddings(pooled)[self._layer(layer)]

    def _layer(self, layer: str) -> str:
        return layer if layer in self.layers else "backbone"

    @staticmethod
    def similarity(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """Return the cosine similarities of unit rows.

        Shapes:
            a: (n, d). b: (m, d). Returns (n, m), between −1 and 1.
        """
        return np.asarray(a @ b.T)

    def odd_one_out(self, triples: Sequence[Sequence[Any]], *, layer: str = "shipped") -> tuple[np.ndarray, np.ndarray]:
        """Say which of three images is the odd one out, and how sure people would be.

        Args:
            triples: n rows of three images (paths or PIL images).
            layer: Whose cosines, at that layer's fitted temperature.

        Returns:
            Position of the odd one out (n,), and p(pair) for the pairs 01, 02, 12 (n, 3); the odd one out of pair 0 is
            image 2, of pair 1 image 1, of pair 2 image 0.
        """
        if not len(triples) or any(len(triple) != 3 for triple in triples):
            raise LikemindError("odd_one_out needs three images in every row: mend the triples")
        flat = [image for triple in triples for image in triple]
        rows = torch.from_numpy(self.encode(flat, layer=layer))
        indices = torch.arange(len(flat)).view(-1, 3)
        temperature = self.config.temperatures.get(self._layer(layer), 1.0)
        probabilities = log_probabilities(pair_similarities(rows, indices), temperature).exp().numpy()
        return np.array(ODD_OF_PAIR)[probabilities.argmax(axis=1)], probabilities

    @classmethod
    def from_pretrained(cls, path_or_id: PathLike) -> Self:
        """Load a model from a folder, or from the Hub by its id. Nothing that is loaded can run code.

        Raises:
            LikemindError: It is not there, or not an aligned model.
        """
        folder = Path(path_or_id)
        if not folder.exists():
            folder = _download(str(path_or_id))
        if not (folder / "likemind.json").exists():
            raise LikemindError(f"{folder} is not an aligned model (it has no likemind.json): check the path")
        try:
            config = ModelConfig.model_validate(read_json(folder / "likemind.json"))
        except ValidationError as error:
            where = ".".join(map(str, error.errors()[0]["loc"]))
            raise LikemindError(
                f"{folder / 'likemind.json'} is not of schema 1 ({where}): save the model again"
            ) from None
        if not (folder / "backbone" / "config.json").exists():
            raise LikemindError(f"{folder} holds no backbone/config.json: save the model again")
        backbone = load_backbone(str(folder / "backbone"))
        arrays = _head_file(folder / "head.safetensors", backbone.dim)
        if config.shipped != "backbone" and "weight" not in arrays:
            raise LikemindError(f"{folder} ships its {config.shipped} but holds no head: save the model again")
        card = folder / "README.md"
        text = card.read_text(encoding="utf-8", errors="replace") if card.exists() else None
        return cls(backbone, arrays["centre"], config, arrays.get("weight"), arrays.get("bias"), text)

    def save_pretrained(self, folder: PathLike, *, card: str | None = None) -> None:
        """Write ``backbone/``, ``head.safetensors``, ``likemind.json`` and, with ``card``, ``README.md``."""
        from safetensors.numpy import save

        where = Path(folder)
        save_backbone(self.backbone, where / "backbone")
        arrays = {"centre": self.centre, "weight": self.head_weight, "bias": self.head_bias}
        kept = {name: np.ascontiguousarray(a, dtype=np.float32) for name, a in arrays.items() if a is not None}
        write_atomic(where / "head.safetensors", save(kept))
        write_json(where / "likemind.json", self.config.model_dump(mode="json", by_alias=True))
        if card is not None:
            write_atomic(where / "README.md", card.encode())

    def push_to_hub(self, repo_id: str, *, private: bool = False) -> str:
        """Upload the model's files; returns the address of the commit.

        Raises:
            LikemindError: The Hub cannot be reached, or refuses.
        """
        import tempfile

        from huggingface_hub import HfApi
        from huggingface_hub.errors import HfHubHTTPError, HFValidationError

        with tempfile.TemporaryDirectory() as folder:
            self.save_pretrained(folder, card=self.card or "# A model aligned by Likemind\n")
            api = HfApi()
            try:
                api.create_repo(repo_id, private=private, exist_ok=True)
                return str(api.upload_folder(repo_id=repo_id, folder_path=folder))
            except (HfHubHTTPError, HFValidationError, OSError) as error:
                raise LikemindError(
                    f"{repo_id} cannot be uploaded ({first_line(error)}): check the name, the network and your login"
                ) from None


def mix(backbone: np.ndarray, head: np.ndarray, beta: float) -> np.ndarray:
    """Join unit rows so that their cosine is (1 − β) · backbone's + β · head's.

    Shapes:
        backbone: (n, d). head: (n, k). Returns (n, d + k), or one part alone where β is 0 or 1.
    """
    if beta in (0.0, 1.0):
        return head if beta else backbone
    return np.concatenate([np.sqrt(1 - beta) * backbone, np.sqrt(beta) * head], axis=1).astype(np.float32)


def unit(rows: np.ndarray) -> np.ndarray:
    """Return the rows at unit length, float32."""
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    scaled: np.ndarray = (rows / np.maximum(length, 1e-12)).astype(np.float32)
    return scaled


class _Pictures(ImageCollection):
    """Paths and PIL images that are already at hand."""

    def __init__(self, pictures: Sequence[Any]) -> None:
        self.path = Path("the images")
        self._pictures = pictures
        self.ids = [str(number) for number in range(len(pictures))]

    def __len__(self) -> int:
        return len(self._pictures)

    def read(self, position: int) -> Image.Image:
        from PIL import Image

        from likemind.images.decode import decode, to_rgb

        picture = self._pictures[position]
        if isinstance(picture, Image.Image):
            return to_rgb(picture)
        path = Path(picture)
        if not path.is_file():
            raise LikemindError(f"{path} does not exist: check the path to the image")
        return decode(path.read_bytes(), str(path))


def _head_file(path: Path, dim: int) -> dict[str, np.ndarray]:
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        arrays: dict[str, np.ndarray] = load(path.read_bytes())
    except (OSError, SafetensorError) as error:
        raise LikemindError(f"{path} cannot be read ({error}): save the model again") from None
    shapes = {name: array.shape for name, array in arrays.items()}
    k = shapes["weight"][0] if shapes.get("weight") else 0
    if shapes not in ({"centre": (dim,)}, {"centre": (dim,), "weight": (k, dim), "bias": (k,)}):
        raise LikemindError(f"{path} does not fit a backbone of width {dim}: save the model again")
    return arrays


def _download(repo_id: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(repo_id, allow_patterns=["*.safetensors", "*.json", "*.md"]))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise LikemindError(
            f"{repo_id} is neither a folder nor to be had from the Hub ({first_line(error)}): check the name"
        ) from None
