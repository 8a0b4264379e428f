"""What commands share: options that mean the same everywhere, how texts are read, how an outcome is told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from likemind.errors import LikemindError


def place(text: str) -> Any:
    """Read a path; or a URL, of which a Path would drop a slash."""
    from likemind.objects import url_of

    return url_of(text) or Path(text)


Out = Annotated[
    Path,
    typer.Option(
        "--out",
        "-o",
        parser=place,
        metavar="PATH",
        help="Where the result goes; the same command continues a killed run.",
    ),
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace another run at --out.")]
Seed = Annotated[int, typer.Option(min=0, help="Decides everything that is drawn.")]
Images = Annotated[
    Path,
    typer.Argument(parser=place, help="A folder, .tar or .parquet of images, or a folder or URL of these."),
]
Backbone = Annotated[
    str,
    typer.Argument(help="timm/NAME, a short name (siglip-b, …), hf/ORG/NAME, open_clip/MODEL:TAG, or a folder of one."),
]
Weights = Annotated[
    str | None, typer.Option(help="A .safetensors, .pth or big_vision .npz file, or 'random'; the Hub's if left out.")
]
Join = Annotated[
    list[Path] | None, typer.Option(help="More features of the same images, joined to FEATURES; repeat for more.")
]
Preparation = Annotated[Literal["alignet"] | None, typer.Option(help="AligNet's instead of the backbone's own.")]
Workers = Annotated[int | None, typer.Option(min=1, help="Threads that decode; one less than there are processors.")]
Column = Annotated[list[str] | None, typer.Option(help="OURS=THEIRS, such as item_0=left; repeat for more.")]
Engine = Annotated[Literal["local", "ray"], typer.Option(help="ray: by Ray's workers, with the same result.")]
Address = Annotated[str | None, typer.Option(help="Of a Ray cluster, such as auto; a local one if left out.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the outcome as JSON.")]


def say(as_json: bool, outcome: dict[str, Any], text: str) -> None:
    """Print an outcome, as JSON or as text."""
    typer.echo(json.dumps(outcome) if as_json else text)


def pairs_of(texts: list[str] | None, option: str) -> dict[str, str]:
    """Read NAME=TEXT, each name once."""
    found: dict[str, str] = {}
    for text in texts or []:
        name, sign, value = text.partition("=")
        if not sign or not name or not value:
            raise LikemindError(f"{option} {text!r} is not NAME=VALUE: write it so")
        if name in found:
            raise LikemindError(f"{option} names {name!r} twice: give it once")
        found[name] = value
    return found


def value_of(text: str) -> object:
    """Read a value that is valid JSON as such, any other as text (so that NaN and Infinity are no numbers)."""
    try:
        return json.loads(text, parse_constant=str)
    except json.JSONDecodeError:
        return text
