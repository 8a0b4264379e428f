"""The command line: parse, call the function of the same name, print. No logic lives here."""

from __future__ import annotations

import errno
import json
import logging
import signal
import sys
from collections.abc import Callable  # noqa: TC003 - typer reads annotations when it runs
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from likemind.errors import LikemindError, interrupted, shown

_INTERRUPTED = 130
"""Exit code after Ctrl-C, as shells have it."""

app = typer.Typer(
    name="likemind",
    help="Give any vision model a human sense of similarity (AligNet, Muttenthaler et al., Nature 2025).",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _place(text: str) -> Any:
    """Read a path; or a URL, of which a Path would drop a slash."""
    from likemind.objects import url_of

    return url_of(text) or Path(text)


Out = Annotated[
    Path,
    typer.Option(
        "--out",
        "-o",
        parser=_place,
        metavar="PATH",
        help="Where the result goes; the same command continues a killed run.",
    ),
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace another run at --out.")]
Seed = Annotated[int, typer.Option(min=0, help="Decides everything that is drawn.")]
Images = Annotated[
    Path,
    typer.Argument(parser=_place, help="A folder, .tar or .parquet of images, or a folder or URL of these."),
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
Engine = Annotated[Literal["local", "ray"], typer.Option(help="ray: by Ray's workers, with the same result.")]
Address = Annotated[str | None, typer.Option(help="Of a Ray cluster, such as auto; a local one if left out.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the outcome as JSON.")]


@app.callback(invoke_without_command=True)
def _main(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Say nothing but the outcome.")] = False,
) -> None:
    if version:
        from likemind import __version__

        typer.echo(f"likemind {__version__}")
        raise typer.Exit
    logger = logging.getLogger("likemind")
    logger.setLevel(logging.WARNING if quiet else logging.INFO)
    if not logger.handlers:
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(logging.Formatter("%(message)s"))
        logger.addHandler(handler)


def _say(as_json: bool, outcome: dict[str, Any], text: str) -> None:
    typer.echo(json.dumps(outcome) if as_json else text)


@app.command()
def embed(
    images: Images,
    backbone: Backbone,
    out: Out,
    weights: Weights = None,
    layers: Annotated[
        list[str] | None,
        typer.Option(
            "--layer",
            help="pooled, or NAME:cls, NAME:mean or NAME of a module; repeat for more: a folder in --out each.",
        ),
    ] = None,
    preprocessing: Annotated[
        Literal["alignet"] | None, typer.Option(help="AligNet's instead of the backbone's own.")
    ] = None,
    precision: Annotated[Literal["auto", "float32", "bfloat16"], typer.Option(help="Of the arithmetic.")] = "auto",
    dtype: Annotated[Literal["float32", "float16"], typer.Option(help="Of the stored rows.")] = "float32",
    engine: Engine = "local",
    address: Address = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Threads that decode; one less than there are processors.")
    ] = None,
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="Leave out unreadable images, and count them.")] = False,
    verify: Annotated[
        bool, typer.Option("--verify", help="Read the images' and the store's bytes again for their hash.")
    ] = False,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Features of a backbone for every image."""
    import likemind

    made = likemind.embed(
        images,
        backbone,
        out=out,
        layers=layers,
        weights=weights,
        preprocessing=preprocessing,
        precision=precision,
        dtype=dtype,
        engine=engine,
        address=address,
        workers=workers,
        skip_bad=skip_bad,
        verify=verify,
        overwrite=overwrite,
    )
    stores = [made] if isinstance(made, likemind.FeatureStore) else list(made.values())
    places = [str(out) if layers is None else f"{out}/{store.path.name}" for store in stores]
    told = [{"out": place, **store.run["figures"]} for place, store in zip(places, stores, strict=True)]
    left = [f", {len(one['left_out'])} left out as unreadable" if one["left_out"] else "" for one in told]
    lines = [f"{one['out']}: {one['images']} images × {one['dim']}{bad}" for one, bad in zip(told, left, strict=True)]
    _say(as_json, told[0] if layers is None else {"out": str(out), "layers": told}, "\n".join(lines))


@app.command()
def judgements(
    path: Annotated[
        Path, typer.Argument(metavar="FILE", help="Answers, an embedding or ratings, as others keep them.")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="A .parquet file, written whole or not at all.")],
    format: Annotated[  # noqa: A002
        str | None,
        typer.Option(
            help="parquet, csv, tsv, things, things-splits, levels, alignet, embedding or ratings; by content if clear."
        ),
    ] = None,
    source: Annotated[str | None, typer.Option(help="human, human_model, simulated or pseudo.")] = None,
    items: Annotated[
        Path | None, typer.Option(help="What numbers count: one name a line, or THINGS' concepts.")
    ] = None,
    order: Annotated[str | None, typer.Option(help="Of an embedding's rows: items or photographs.")] = None,
    scale: Annotated[str | None, typer.Option(help="Of ratings: similarity or dissimilarity.")] = None,
    variable: Annotated[str | None, typer.Option(help="Of a .mat file.")] = None,
    column: Annotated[list[str] | None, typer.Option(help="OURS=THEIRS, such as item_0=left; repeat for more.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace --out.")] = False,
    as_json: AsJson = False,
) -> None:
    """Other people's judgements as Parquet, and what they hold."""
    import likemind

    renamed = _pairs(column, "--column")
    summary = likemind.judgements(
        path,
        out=out,
        format=format,
        source=source,
        items=items,
        order=order,
        scale=scale,
        variable=variable,
        overwrite=overwrite,
        **renamed,
    )
    _say(as_json, summary.to_dict(), "\n".join(summary.lines()))


@app.command()
def teach(
    features: Annotated[Path, typer.Argument(help="An output of `likemind embed`; with --preset, photographs.")],
    judgements: Annotated[Path, typer.Argument(help="Odd-one-out answers, or a model of people (an embedding).")],
    out: Out,
    join: Join = None,
    folds: Annotated[int, typer.Option(help="Parts that the objects are split into.")] = 3,
    penalty: Annotated[list[float] | None, typer.Option(help="A candidate; repeat for more.")] = None,
    mix: Annotated[
        list[float] | None, typer.Option(help="A candidate for the map's share, above 0, at most 1; repeat for more.")
    ] = None,
    people: Annotated[
        str | None, typer.Option(help="counts (shares of the answers) or posterior (VICE); the preset's is posterior.")
    ] = None,
    max_loss: Annotated[float, typer.Option(help="Points of 5-shot accuracy that a map must lose less than.")] = 1.0,
    others: Annotated[
        list[Path] | None,
        typer.Option(help="Features of other images, which are to keep their neighbours; repeat as for --join."),
    ] = None,
    local_weight: Annotated[float, typer.Option(help="Share of that wish, at least 0 and below 1.")] = 0.25,
    preset: Annotated[str | None, typer.Option(help="alignet: embed photographs as the paper's teacher does.")] = None,
    weights: Annotated[str | None, typer.Option(help="Of the preset's backbone: a file, or 'random'.")] = None,
    column: Annotated[list[str] | None, typer.Option(help="OURS=THEIRS, such as item_0=left; repeat for more.")] = None,
    groups: Annotated[Path | None, typer.Option(help="Table of id and category; folds keep categories whole.")] = None,
    seed: Seed = 0,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """A surrogate teacher, fitted to people's answers."""
    import likemind
    from likemind.readers.judgements import read_triplets

    renamed = _pairs(column, "--column")
    answers = read_triplets(judgements, **renamed) if renamed else judgements
    given: dict[str, Any] = {"mixes": mix, "people": people, "preset": preset}
    teacher = likemind.teach(
        [features, *join] if join else features,
        answers,
        out=out,
        folds=folds,
        penalties=penalty,
        groups=groups,
        max_loss=max_loss,
        others=others,
        local_weight=local_weight,
        weights=weights,
        seed=seed,
        overwrite=overwrite,
        **{name: value for name, value in given.items() if value is not None},
    )
    facts = teacher.facts_
    few = f", 5-shot loss {facts['fewshot_loss']:+.2f} points" if "fewshot_loss" in facts else ""
    text = (
        f"{out}: {'the identity' if teacher.is_identity else f'penalty {teacher.penalty:g}, mix {teacher.mix:g}'}; "
        f"agreement on unseen objects {facts['agreement_unseen_identity']:.3f} → {facts['agreement_unseen']:.3f} "
        f"(ceiling {facts['ceiling']:.3f}, source {facts['source']}){few}"
    )
    chosen = {"penalty": None if teacher.is_identity else teacher.penalty, "mix": teacher.mix}
    _say(as_json, {"out": str(out), **chosen, **facts}, text)


@app.command()
def label(
    features: Annotated[Path, typer.Argument(parser=_place, help="Features by the teacher's backbone; path or URL.")],
    teacher: Annotated[
        Path,
        typer.Argument(
            parser=_place,
            metavar="TEACHER",
            help="An output of `likemind teach`, or gLocal's transform.npz; path or URL.",
        ),
    ],
    out: Out,
    n: Annotated[int, typer.Option("-n", "--n", help="Triplets, all different.")],
    join: Join = None,
    sampling: Annotated[
        str, typer.Option(help="cluster_border, uniform, between_class, within_class or class_border.")
    ] = "cluster_border",
    clusters: Annotated[int, typer.Option(help="Of k-means.")] = 500,
    classes: Annotated[
        Path | None, typer.Option(help="Table of id and category; the clusters are the classes if left out.")
    ] = None,
    control: Annotated[
        bool, typer.Option("--control", help="Label with the untransformed features (UnAligNet).")
    ] = False,
    npz: Annotated[bool, typer.Option("--npz", help="Write AligNet's alignet.npz too.")] = False,
    seed: Seed = 0,
    engine: Engine = "local",
    address: Address = None,
    verify: Annotated[bool, typer.Option("--verify", help="Check the bytes of inputs and labels again.")] = False,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Pseudo-human similarities for triplets of images."""
    import likemind
    from likemind.artifacts import read_run
    from likemind.fetched import fetched

    likemind.label(
        [features, *join] if join else features,
        teacher,
        out=out,
        n=n,
        sampling=sampling,
        clusters=clusters,
        classes=classes,
        control=control,
        npz=npz,
        seed=seed,
        engine=engine,
        address=address,
        verify=verify,
        overwrite=overwrite,
    )
    figures = read_run(fetched(out))["figures"]
    mean, ties = figures["mean_entropy"], figures["ties"]
    text = f"{out}: {n} triplets; mean entropy {mean:.3f} of {1.0986:.3f} nats, {ties:.2%} ties"
    _say(as_json, {"out": str(out), **figures}, text)


@app.command()
def align(
    images: Images,
    backbone: Backbone,
    out: Out,
    teacher: Annotated[Path | None, typer.Option(help="An output of `likemind teach`.")] = None,
    triplets: Annotated[Path | None, typer.Option(help="An output of `likemind label`.")] = None,
    features: Annotated[Path | None, typer.Option(help="The teacher's backbone's features of the images.")] = None,
    validation: Annotated[
        Path | None, typer.Option(help="An evaluation folder; its validation objects choose what is shipped.")
    ] = None,
    recipe: Annotated[str, typer.Option(help="smoke, small or paper.")] = "small",
    changes: Annotated[
        list[str] | None, typer.Option("--set", help="FIELD=VALUE of the recipe; repeat for more.")
    ] = None,
    control: Annotated[bool, typer.Option("--control", help="Learn from the unaligned teacher (UnAligNet).")] = False,
    seed: Seed = 0,
    weights: Weights = None,
    preprocessing: Annotated[
        Literal["alignet"] | None, typer.Option(help="AligNet's instead of the backbone's own.")
    ] = None,
    ladder: Annotated[
        bool | None, typer.Option("--ladder/--no-ladder", help="Climb the ladder of tests first; before long runs.")
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Threads that decode; one less than there are processors.")
    ] = None,
    images_at_once: Annotated[
        int | None, typer.Option(min=1, help="Images forwarded at once, where a batch does not fit into memory.")
    ] = None,
    compiled: Annotated[bool, typer.Option("--compile", help="Compile the network.")] = False,
    tracker: Annotated[str | None, typer.Option(help="Of Accelerate, such as tensorboard or wandb.")] = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """A student whose similarities are the teacher's."""
    import likemind

    model = likemind.align(
        images,
        backbone,
        teacher=teacher,
        triplets=triplets,
        features=features,
        validation=validation,
        out=out,
        recipe=recipe,
        changes={name: _value(text) for name, text in _pairs(changes, "--set").items()},
        control=control,
        seed=seed,
        weights=weights,
        preprocessing=preprocessing,
        ladder=ladder,
        workers=workers,
        images_at_once=images_at_once,
        compiled=compiled,
        tracker=tracker,
        overwrite=overwrite,
    )
    chosen = model.config
    text = f"{out}: ships {chosen.shipped} (α {chosen.alpha:g}, β {chosen.beta:g})"
    _say(as_json, {"out": str(out), "shipped": chosen.shipped, "alpha": chosen.alpha, "beta": chosen.beta}, text)


@app.command()
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
    pairs = _pairs(named, "MODELS")
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
    _say(as_json, results.model_dump(mode="json", by_alias=True), results.table())


@app.command()
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
    _say(as_json, {"out": str(page)}, str(page))


@app.command()
def demo(
    out: Out = Path("runs/demo"),
    world: Annotated[str, typer.Option(help="emoji or photos.")] = "emoji",
    data_dir: Annotated[Path | None, typer.Option(help="Photographs and human data; fetched if left out.")] = None,
    student: Annotated[str, typer.Option(help="lite0 or vit.")] = "lite0",
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
    _say(as_json, results.model_dump(mode="json", by_alias=True), text)


@app.command()
def data(
    name: Annotated[str | None, typer.Argument(help="Of a data set; all are listed if left out.")] = None,
    sets: Annotated[Path | None, typer.Option(help="The folder of data sets; Likemind's cache if left out.")] = None,
    as_json: AsJson = False,
) -> None:
    """What data sets there are; with a name, fetches it, or says where to ask."""
    import likemind

    found = likemind.data(name, sets=sets)
    told = [one.lines() if name else one.lines()[:3] for one in found]
    _say(as_json, {"data": [one.to_dict() for one in found]}, "\n".join("\n".join(lines) for lines in told))


@app.command()
def doctor(as_json: AsJson = False) -> None:
    """What works on this machine, and how to mend what does not."""
    import likemind

    diagnosis = likemind.doctor()
    _say(as_json, diagnosis.to_dict(), "\n".join(diagnosis.lines()))
    if not diagnosis.ok:
        raise typer.Exit(1)


def _pairs(texts: list[str] | None, option: str) -> dict[str, str]:
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


def _value(text: str) -> object:
    """Read a value that is valid JSON as such, any other as text (so that NaN and Infinity are no numbers)."""
    try:
        return json.loads(text, parse_constant=str)
    except json.JSONDecodeError:
        return text


def main() -> None:
    """Run a command; exit code 2 and one sentence for the user's mistake, 130 after Ctrl-C, 1 for ours."""
    code = run(app)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # all is said and done; Python's clearing up may take a second
    exec("")  # noqa: S102  forgets a Ctrl-C inside an exec, for which ``python -m`` kills itself whatever the exit code
    sys.exit(code)


def run(command: Callable[..., Any], args: list[str] | None = None) -> int:
    """Call a command and return its exit code."""
    try:
        command(args=args, standalone_mode=True)
    except LikemindError as error:
        sys.stderr.write(f"likemind: {shown(str(error))}\n")
        return 2
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:
            raise
        sys.stderr.write(f"likemind: {shown(str(error.filename))} is too long for a path: choose a shorter one\n")
        return 2
    except SystemExit as stopped:
        code = stopped.code if isinstance(stopped.code, int) else 1
    except BaseException as error:
        if not interrupted(error):
            raise
        code = _INTERRUPTED
    else:
        code = 0
    if code == _INTERRUPTED:  # typer turns Ctrl-C into this code without a word
        sys.stderr.write("likemind: interrupted; the same command continues\n")
    return code


if __name__ == "__main__":
    main()
