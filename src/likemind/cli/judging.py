"""The verbs that judge, show and look after: evaluate, report, demo, data, doctor."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from likemind.cli.options import AsJson, Out, Overwrite, Seed, pairs_of, say


def evaluate(
    models: Annotated[list[str], typer.Argument(help="NAME=PATH, or PATH; each is compared with those before it.")],
    data: Annotated[Path, typer.Option(help="An evaluation folder.")],
    out: Out,
    sets: Annotated[
        Path | None, typer.Option(help="A folder of data sets (`likemind data`) that robustness is tested on.")
    ] = None,
    suite: Annotated[
        str, typer.Option(help="all, or some of human,calibration,generalisation,robustness,structure.")
    ] = "all",
    intervals: Annotated[
        Literal["clustered", "independent"], typer.Option(help="Whether triplets share images and people.")
    ] = "clustered",
    features: Annotated[Path | None, typer.Option(help="A folder that keeps features for other evaluations.")] = None,
    allow_missing: Annotated[
        bool, typer.Option("--allow-missing", help="Leave out items without an image instead of stopping.")
    ] = False,
    skip_bad: Annotated[
        bool, typer.Option("--skip-bad", help="Leave out unreadable images instead of stopping.")
    ] = False,
    seed: Seed = 0,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Scores and paired comparisons on held-out objects."""
    import likemind

    named = [model if "=" in model else f"{Path(model).name}={model}" for model in models]
    pairs = pairs_of(named, "MODELS")
    results = likemind.evaluate(
        pairs,
        data=data,
        out=out,
        sets=sets,
        suite=suite,
        intervals=intervals,
        features=features,
        allow_missing=allow_missing,
        skip_bad=skip_bad,
        seed=seed,
        overwrite=overwrite,
    )
    say(as_json, results.model_dump(mode="json", by_alias=True), results.table())


def report(
    results: Annotated[Path, typer.Argument(help="An output of `likemind evaluate`.")],
    out: Out = Path("report.html"),
    labels: Annotated[Path | None, typer.Option(help="An output of `likemind label`: shows its clusters.")] = None,
    no_pictures: Annotated[bool, typer.Option("--no-pictures", help="Show no image of the data set.")] = False,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """One self-contained HTML page."""
    import likemind

    page = likemind.report(results, out=out, labels=labels, pictures=not no_pictures, overwrite=overwrite)
    say(as_json, {"out": str(page)}, str(page))


def demo(
    out: Out = Path("runs/demo"),
    world: Annotated[str, typer.Option(help="emoji or photos.")] = "emoji",
    data_dir: Annotated[Path | None, typer.Option(help="Photographs and human data; fetched if left out.")] = None,
    student: Annotated[str, typer.Option(help="lite0, lite2 or vit.")] = "lite0",
    seed: Seed = 0,
    no_pictures: Annotated[bool, typer.Option("--no-pictures", help="Make the page without pictures.")] = False,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """The whole job, in a world of drawings and *simulated* answers or of photographs and a model of people."""
    import likemind

    results = likemind.demo(
        world=world,
        data_dir=data_dir,
        student=student,
        out=out,
        seed=seed,
        pictures=not no_pictures,
        overwrite=overwrite,
    )
    text = f"{results.table()}\n\n{results.run['dataset']['about']}\nOpen {out / 'report.html'}"
    say(as_json, results.model_dump(mode="json", by_alias=True), text)


def data(
    name: Annotated[str | None, typer.Argument(help="Of a data set; all are listed if left out.")] = None,
    sets: Annotated[Path | None, typer.Option(help="The folder of data sets; Likemind's cache if left out.")] = None,
    as_json: AsJson = False,
) -> None:
    """What data sets there are; with a name, fetches it, or says where to ask."""
    import likemind

    found = likemind.data(name, sets=sets)
    told = [one.lines() if name else one.lines()[:3] for one in found]
    say(as_json, {"data": [one.to_dict() for one in found]}, "\n".join("\n".join(lines) for lines in told))


def doctor(as_json: AsJson = False) -> None:
    """What works on this machine, and how to mend what does not."""
    import likemind

    diagnosis = likemind.doctor()
    say(as_json, diagnosis.to_dict(), "\n".join(diagnosis.lines()))
    if not diagnosis.ok:
        raise typer.Exit(1)
