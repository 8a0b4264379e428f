"""A teacher's model card."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from likemind.teacher.teacher import Teacher

_SOURCES = {
    "human": "recorded answers of people",
    "human_model": "a model of people, fitted to recorded answers",
    "simulated": "simulated observers: nothing here is evidence about people",
    "pseudo": "labels of another teacher",
}


def card(teacher: Teacher) -> str:
    """Return the card, Markdown: what it was fitted to, what it costs, and how it was chosen."""
    facts = teacher.facts_
    return f"""# A surrogate teacher made by Likemind

One affine map on the features of `{facts["backbone_name"]}`, fitted to {facts["answers"]:,} odd-one-out answers
(source: **{facts["source"]}**, {_SOURCES[facts["source"]]}) on
{facts["triplets"]:,} triplets of {facts["items"]:,} items, after AligNet (Muttenthaler et al., Nature 2025).
People's distribution for a triplet: {facts["people"]}. Chosen: {_said(teacher)}.

Cross-validation over objects; each triplet judged has at least two objects that the fit had not seen. Agreement is the
mean share of answers that the teacher's choice got; chance 0.333, ceiling {facts["ceiling"]:.3f}{_repeats(facts)}.
A map must beat the identity by two standard errors (triplets with an object in common go together){_few(teacher)};
of those within one standard error of the best, the one that departs least from the identity is chosen.

{_candidates(teacher)}

{_by_level(teacher)}{_calibration(teacher)}Load it with `likemind.Teacher.load(folder)`; it takes features of the same
backbone, layer and preprocessing only (fingerprint `{teacher.backbone_[:16]}…`).
"""


def _said(teacher: Teacher) -> str:
    if teacher.is_identity:
        return "identity, since no map beats the untransformed features on unseen objects"
    mixed = (
        ""
        if teacher.mix == 1.0
        else f", its similarities mixed {teacher.mix:g} to {1 - teacher.mix:g} with the features' own"
    )
    local = "" if not teacher.local_weight else f", local term with the weight {teacher.local_weight:g}"
    return f"penalty {teacher.penalty:g}{mixed}{local}"


def _repeats(facts: dict[str, Any]) -> str:
    return "" if facts["ceiling"] < 1 else " (nobody was asked twice: 1 by construction)"


def _few(teacher: Teacher) -> str:
    if "fewshot_loss" not in teacher.chosen_:
        return "; few-shot accuracy was not measured, for want of pictures of unseen objects"
    return (
        f", and lose less than {teacher.facts_['max_loss']:g} points of 5-shot accuracy on classes that it has not seen"
    )


def _candidates(teacher: Teacher) -> str:
    few = "fewshot" in teacher.cv_results_[0]
    head = "| penalty | mix | cross-entropy, nats | agreement |" + (" 5-shot | points lost, 95 % |" if few else "")
    lines = [head, "|---" * (6 if few else 4) + "|"]
    for row in teacher.cv_results_:
        name = "identity" if row["penalty"] is None else f"{row['penalty']:g}"
        cells = [f"**{name}**" if row["chosen"] else name, f"{row['mix']:g}", f"{row['cross_entropy']:.4f}"]
        cells.append(f"{row['agreement']:.4f}")
        if few:
            cells += [f"{row['fewshot']:.3f}", f"{row['fewshot_loss']:+.2f} ± {1.96 * row['fewshot_loss_error']:.2f}"]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _by_level(teacher: Teacher) -> str:
    identity, chosen = teacher.cv_results_[0], teacher.chosen_
    if "levels" not in chosen:
        return ""
    rows = [f"| {name} | {identity['levels'][name]:.4f} | {value:.4f} |" for name, value in chosen["levels"].items()]
    return "\n".join(["| level | agreement, untransformed | agreement |", "|---|---|---|", *rows, "", ""])


def _calibration(teacher: Teacher) -> str:
    before, after = teacher.cv_results_[0]["calibration_error"], teacher.chosen_["calibration_error"]
    return (
        "Expected calibration error on those triplets (15 bins of confidence, each at its own temperature): "
        f"{after:.3f} (untransformed {before:.3f}).\n\n"
    )
