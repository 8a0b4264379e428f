"""``adapter.json``: what another library's own files cannot tell of a backbone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from likemind.artifacts import read_json, write_json
from likemind.errors import LikemindError
from likemind.images.decode import Preprocessing

if TYPE_CHECKING:
    from pathlib import Path

    from likemind.backbones.base import Backbone

ADAPTER = "adapter.json"


class Saved(BaseModel):
    """How a saved backbone is used; it stands beside the files of the library that it belongs to.

    Attributes:
        library: Whose files stand beside it; ``module`` for a class of the user's.
        architecture: The class's name there.
        layer: Which output is taken.
        preprocessing: From an RGB image to the network's input.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    library: Literal["transformers", "open_clip", "module"]
    architecture: str
    layer: str
    preprocessing: Preprocessing


def inner(folder: Path) -> Path:
    """Return the ``backbone/`` in a student's folder; any other folder as it is."""
    within = folder / "backbone"
    return within if (within / "config.json").exists() or (within / ADAPTER).exists() else folder


def read_saved(folder: Path) -> Saved:
    """Read a folder's ``adapter.json``.

    Raises:
        LikemindError: It is missing or not valid.
    """
    try:
        return Saved.model_validate(read_json(folder / ADAPTER))
    except ValidationError as error:
        where = ".".join(map(str, error.errors()[0]["loc"]))
        raise LikemindError(f"{folder / ADAPTER} is not valid ({where}): save the backbone again") from None


def write_saved(backbone: Backbone, folder: Path) -> None:
    """Write a backbone's ``adapter.json``."""
    about = {
        "library": backbone.library,
        "architecture": backbone.config["class"],
        "layer": backbone.layer,
        "preprocessing": backbone.preprocessing,
    }
    write_json(folder / ADAPTER, Saved.model_validate(about).model_dump(mode="json"))
