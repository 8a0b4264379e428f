"""The aligned model: a backbone in its own library's files, a triplet head, and the one embedding that is shipped."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from likemind.artifacts import PathLike, read_json, write_atomic, write_json
from likemind.backbones.saved import ADAPTER
from likemind.backbones.timm import load_backbone, save_backbone
from likemind.backbones.user import reload
from likemind.choice import ODD_OF_PAIR, log_probabilities, pair_similarities
from likemind.errors import LikemindError, first_line
from likemind.features.embed import embed_rows
from likemind.hashes import key_of
from likemind.images.collection import ImageCollection, open_images
from likemind.student.card import with_results

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from PIL import Image
    from torch import nn

    from likemind.backbones.base import Backbone

LAYERS = ("backbone", "head", "shipped")
_PLAIN_CARD = "---\nlibrary_name: likemind\n---\n\n# A model aligned by Likemind\n"


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
        backbone: The network; the library that it came from loads it from ``DIR/backbone``, without us.
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
    def key(self) -> str:
        """Hash of all that decides the embeddings and the choices: weights, preprocessing, what is shipped, τ."""
        arrays = [self.centre, *(a for a in (self.head_weight, self.head_bias) if a is not None)]
        digests = [hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest() for array in arrays]
        config = self.config.model_dump(mode="json", by_alias=True, exclude={"facts"})
        return key_of(backbone=self.backbone.fingerprint, arrays=digests, config=config)

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

    def encode(self, images: PathLike | ImageCollection | Iterable[Any], *, layer: str = "shipped") -> np.ndarray:
        """Embed images.

        Args:
            images: A folder, tar or Parquet file of images, what ``open_images`` returns, or a list whose entries are
                paths, PIL images or uint8 arrays (height, width) or (height, width, 3).
            layer: ``shipped``, ``backbone`` or ``head``.

        Returns:
            (n, d) float32, rows of unit length.

        Raises:
            LikemindError: An image cannot be read, or there is no such layer.
        """
        if layer not in LAYERS or (layer == "head" and self.head_weight is None):
            raise LikemindError(f"this model has no layer {layer!r}: choose one of {', '.join(self.layers)}")
        pictures = _pictures(images)
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

        Raises:
            LikemindError: The rows are not embeddings of one layer.
        """
        if np.ndim(a) != 2 or np.ndim(b) != 2 or a.shape[1] != b.shape[1]:
            shapes = f"{np.shape(a)} and {np.shape(b)}"
            raise LikemindError(f"similarity needs rows of one layer, got {shapes}: encode both alike")
        return np.asarray(a @ b.T)

    def odd_one_out(self, triples: Sequence[Sequence[Any]], *, layer: str = "shipped") -> tuple[np.ndarray, np.ndarray]:
        """Say which of three images is the odd one out, and how sure people would be.

        Args:
            triples: n rows of three images, each as for ``encode``.
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
    def from_pretrained(
        cls, path_or_id: PathLike, *, revision: str | None = None, backbone: nn.Module | None = None
    ) -> Self:
        """Load a model from a folder, or from the Hub by its id. Nothing that is loaded can run code.

        What comes from the Hub is kept in huggingface_hub's cache, and is found there without a network.

        Args:
            path_or_id: A folder that ``align`` or ``save_pretrained`` wrote, or an id such as ``somebody/a-model``.
            revision: Branch, tag or commit on the Hub; its main branch if None.
            backbone: For a student of a class of your own, a module of that class; a copy of it is filled with the
                weights.

        Raises:
            LikemindError: It is not there, or not an aligned model.
        """
        folder = Path(path_or_id)
        if not folder.exists():
            folder = _download(str(path_or_id), revision)
        elif revision is not None:
            raise LikemindError(f"{folder} is a folder and has no revision {revision!r}: leave revision out")
        if not (folder / "likemind.json").exists():
            raise LikemindError(f"{folder} is not an aligned model (it has no likemind.json): check the path")
        try:
            config = ModelConfig.model_validate(read_json(folder / "likemind.json"))
        except ValidationError as error:
            where = ".".join(map(str, error.errors()[0]["loc"]))
            raise LikemindError(
                f"{folder / 'likemind.json'} is not of schema 1 ({where}): save the model again"
            ) from None
        network = _backbone(folder, backbone)
        arrays = _head_file(folder / "head.safetensors", network.dim)
        if config.shipped != "backbone" and "weight" not in arrays:
            raise LikemindError(f"{folder} ships its {config.shipped} but holds no head: save the model again")
        card = folder / "README.md"
        text = card.read_text(encoding="utf-8", errors="replace") if card.exists() else None
        return cls(network, arrays["centre"], config, arrays.get("weight"), arrays.get("bias"), text)

    def save_pretrained(self, folder: PathLike, *, card: str | None = None, results: PathLike | None = None) -> None:
        """Write ``backbone/``, ``head.safetensors``, ``likemind.json`` and, where there is a card, ``README.md``.

        Args:
            folder: Where to; not a finished output of ``align``, which stays as it is.
            card: The model card; the one that the model was loaded with if None.
            results: An output of ``likemind evaluate`` that judged this model: the card's evaluation is filled from it.

        Raises:
            LikemindError: ``folder`` is a finished artifact, or the results are of other models.
        """
        from safetensors.numpy import save

        where = Path(folder)
        if (where / "run.json").exists():
            raise LikemindError(f"{where} is a finished artifact and stays as it is: save to another folder")
        text = self.card if card is None else card
        if results is not None:
            text = with_results(text or _PLAIN_CARD, self.key, results)
        save_backbone(self.backbone, where / "backbone")
        arrays = {"centre": self.centre, "weight": self.head_weight, "bias": self.head_bias}
        kept = {name: np.ascontiguousarray(a, dtype=np.float32) for name, a in arrays.items() if a is not None}
        write_atomic(where / "head.safetensors", save(kept))
        write_json(where / "likemind.json", self.config.model_dump(mode="json", by_alias=True))
        if text is not None:
            write_atomic(where / "README.md", text.encode())

    def push_to_hub(self, repo_id: str, *, private: bool = False, results: PathLike | None = None) -> str:
        """Upload the model's files; returns the address of the commit.

        Args:
            repo_id: Such as ``somebody/a-model``; made if it is not there.
            private: Whether a new repository is private.
            results: As for ``save_pretrained``.

        Raises:
            LikemindError: The Hub cannot be reached, or refuses.
        """
        import tempfile

        from huggingface_hub import HfApi

        with tempfile.TemporaryDirectory() as folder:
            self.save_pretrained(folder, card=self.card or _PLAIN_CARD, results=results)
            api = HfApi()
            try:
                api.create_repo(repo_id, private=private, exist_ok=True)
                return str(api.upload_folder(repo_id=repo_id, folder_path=folder))
            except Exception as error:  # noqa: BLE001 - the Hub's client raises whatever its HTTP library raises
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


def _pictures(images: Any) -> ImageCollection | _Pictures:
    """Open what ``encode`` was given."""
    from PIL import Image

    if isinstance(images, (str, os.PathLike, ImageCollection)):
        return open_images(images)
    if isinstance(images, Image.Image) or (isinstance(images, np.ndarray) and images.ndim < 4):
        raise LikemindError("a list of images is needed, got one image: put it into [ ]")
    try:
        return _Pictures(list(images))
    except TypeError:
        raise LikemindError(f"images cannot be {type(images).__name__}: give a folder or a list") from None


class _Pictures(ImageCollection):
    """Paths, PIL images and arrays that are already at hand."""

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
        if isinstance(picture, np.ndarray):
            if picture.dtype != np.uint8 or (picture.ndim != 2 and picture.shape[2:] != (3,)):
                told = f"{picture.dtype} of shape {picture.shape}"
                raise LikemindError(f"image {position} is {told}: give uint8 of shape (height, width, 3)")
            picture = Image.fromarray(picture)
        if isinstance(picture, Image.Image):
            return to_rgb(picture)
        try:
            path = Path(picture)
        except TypeError:
            told = type(picture).__name__
            raise LikemindError(f"image {position} is {told}: give a path, a PIL image or a uint8 array") from None
        if not path.is_file():
            raise LikemindError(f"{path} does not exist: check the path to the image")
        return decode(path.read_bytes(), str(path))


def _backbone(folder: Path, module: nn.Module | None) -> Backbone:
    """Load a student's backbone, by the library whose files it lies in."""
    where = folder / "backbone"
    if module is not None:
        if not (where / ADAPTER).exists():
            raise LikemindError(f"{folder} needs no module, its backbone loads by itself: leave backbone out")
        return reload(where, module)
    if not any((where / name).exists() for name in ("config.json", ADAPTER)):
        raise LikemindError(f"{folder} holds no backbone/config.json: save the model again")
    return load_backbone(str(where))


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


def _download(repo_id: str, revision: str | None) -> Path:
    from huggingface_hub import errors, snapshot_download

    wanted = ["*.safetensors", "*.json", "*.md"]
    try:
        return Path(snapshot_download(repo_id, revision=revision, allow_patterns=wanted))
    except errors.LocalEntryNotFoundError:
        reason, mend = "it cannot be reached, and the cache does not hold it", "check the name and the network"
    except errors.RevisionNotFoundError:
        reason, mend = f"it has no revision {revision!r} there", "check the revision"
    except errors.RepositoryNotFoundError:
        reason, mend = "there is none, or it is private", "check the name and your login"
    except Exception as error:  # noqa: BLE001 - the Hub's client raises whatever its HTTP library raises
        reason, mend = first_line(error), "check the name"
    raise LikemindError(f"{repo_id} is neither a folder nor to be had from the Hub ({reason}): {mend}")
