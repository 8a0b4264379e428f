"""The verbs that make something: features, judgements, a teacher, labels, a student."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003 - typer reads annotations when it runs
from typing import Annotated, Any, Literal

import typer

from likemind.cli.options import (
    Address,
    AsJson,
    Backbone,
    Column,
    Engine,
    Images,
    Join,
    Out,
    Overwrite,
    Preparation,
    Seed,
    Weights,
    Workers,
    pairs_of,
    place,
    say,
    value_of,
)


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
    preprocessing: Preparation = None,
    precision: Annotated[Literal["auto", "float32", "bfloat16"], typer.Option(help="Of the arithmetic.")] = "auto",
    dtype: Annotated[Literal["float32", "float16"], typer.Option(help="Of the stored rows.")] = "float32",
    engine: Engine = "local",
    address: Address = None,
    workers: Workers = None,
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
    say(as_json, told[0] if layers is None else {"out": str(out), "layers": told}, "\n".join(lines))


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
    column: Column = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace --out.")] = False,
    as_json: AsJson = False,
) -> None:
    """Other people's judgements as Parquet, and what they hold."""
    import likemind

    renamed = pairs_of(column, "--column")
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
    say(as_json, summary.to_dict(), "\n".join(summary.lines()))


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
    column: Column = None,
    groups: Annotated[Path | None, typer.Option(help="Table of id and category; folds keep categories whole.")] = None,
    seed: Seed = 0,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """A surrogate teacher, fitted to people's answers."""
    import likemind
    from likemind.readers.judgements import read_triplets

    renamed = pairs_of(column, "--column")
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
    say(as_json, {"out": str(out), **chosen, **facts}, text)


def label(
    features: Annotated[Path, typer.Argument(parser=place, help="Features by the teacher's backbone; path or URL.")],
    teacher: Annotated[
        Path,
        typer.Argument(
            parser=place,
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
    say(as_json, {"out": str(out), **figures}, text)


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
    preprocessing: Preparation = None,
    ladder: Annotated[
        bool | None, typer.Option("--ladder/--no-ladder", help="Climb the ladder of tests first; before long runs.")
    ] = None,
    workers: Workers = None,
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
        changes={name: value_of(text) for name, text in pairs_of(changes, "--set").items()},
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
    say(as_json, {"out": str(out), "shipped": chosen.shipped, "alpha": chosen.alpha, "beta": chosen.beta}, text)
