"""The comparisons in plain words, those that matter most first."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from likemind.reporting import words
from likemind.reporting.evidence import HELDOUT, MetricId, Place
from likemind.reporting.words import against, count, measure, split_name, subject

if TYPE_CHECKING:
    from collections.abc import Mapping

    from likemind.evaluation.results import Comparison, Score
    from likemind.reporting.evidence import Evidence

_ANSWERS = {"better": "yes", "worse": "no, worse", "no difference seen": "no difference seen"}
_RECORDED = ("accuracy", "rsa.spearman")
_THEMES = {
    "Likeness": ("Which of three is the odd one out?", ("agreement.all",)),
    "Recorded answers": ("Each line says whose they are.", _RECORDED),
    "New classes": ("How well is a class learned from a few pictures?", ("fewshot.k1", "fewshot.k5")),
    "Doubt": ("Is the model unsure where they are?", ("ece.after", "ece.before", "entropy_rt.spearman")),
    "Order": ("Do clusters follow meaning?", ("grouping.ami",)),
}
_SHORT = ("agreement.all", *_RECORDED, "fewshot.k1", "fewshot.k5", "entropy_rt.spearman")


@dataclass(frozen=True)
class Verdict:
    """One comparison in words.

    Attributes:
        claim: What would be better.
        verdict: ``better``, ``worse`` or ``no difference seen``.
        answer: The verdict in words.
        amount: Difference and unit.
        interval: Its 95 % interval.
        note: n, whose answers, and layers.
        low, middle, high: The interval on a scale from -1 to 1 that its theme shares.
    """

    claim: str
    verdict: str
    answer: str
    amount: str
    interval: str
    note: str
    low: float
    middle: float
    high: float


@dataclass(frozen=True)
class Theme:
    """Verdicts on one subject, which ``about`` says in a few words."""

    name: str
    about: str
    verdicts: list[Verdict]


@dataclass(frozen=True)
class Answer:
    """One of the few verdicts at the top: a question, the answer, its size, and the levels behind it."""

    question: str
    verdict: str
    answer: str
    amount: str
    interval: str
    note: str


@dataclass(frozen=True)
class Headline:
    """The page's title, the sentence under it, and the answers in short."""

    title: str
    lede: str
    answers: list[Answer]


def themes(evidence: Evidence, observers: str) -> list[Theme]:
    """Return the headline comparisons of the aligned model, in words."""
    found = []
    for name, (about, stems) in _THEMES.items():
        chosen = [comparison for stem in stems for comparison in _comparisons(evidence, stem)]
        widest = {
            stem: max(abs(bound) for one in chosen for bound in (one.low, one.high) if _unit(one) == stem) or 1.0
            for stem in map(_unit, chosen)
        }
        verdicts = [_verdict(evidence, one, observers, widest[_unit(one)]) for one in chosen]
        if verdicts:
            found.append(Theme(name, about, verdicts))
    return found


def _unit(comparison: Comparison) -> str:
    return measure(MetricId.parse(comparison.metric).stem).unit


def _comparisons(evidence: Evidence, stem: str) -> list[Comparison]:
    """Return those worth a line: against the base model; of likeness also against the others and at every layer."""
    after = evidence.after
    if after is None:
        return []
    found = []
    for position, comparison in enumerate(evidence.results.comparisons):
        metric, base = MetricId.parse(comparison.metric), comparison.against == evidence.before.model
        first = _is_main(evidence, metric)
        if (comparison.model, metric.stem) != (after.model, stem) or not (first or metric.dataset == evidence.name):
            continue
        main, likeness = metric.layer == after.layer, stem == "agreement.all" and first
        rival = base or likeness or (first and stem in _RECORDED and comparison.against == "control")
        if (main and rival) or (base and likeness):
            found.append((not main, not first, not base, position, comparison))
    return [comparison for *_, comparison in sorted(found, key=lambda one: one[:-1])]


def _is_main(evidence: Evidence, metric: MetricId) -> bool:
    """Whether a metric is about the held-out items, the few-shot classes or recorded answers: no shift, no split."""
    if metric.stem in _RECORDED:
        return (metric.prefix, metric.stem) in evidence.recorded
    return metric.prefix == evidence.prefix(metric.stem)


def _verdict(evidence: Evidence, comparison: Comparison, observers: str, widest: float) -> Verdict:
    metric = MetricId.parse(comparison.metric)
    how = measure(metric.stem).fine_enough(comparison.low, comparison.high)
    other = evidence.main_place(comparison.against).layer if comparison.against in evidence.models else ""
    same = Place(comparison.against, metric.layer) in evidence.places
    low, middle, high = (value / widest for value in (comparison.low, comparison.difference, comparison.high))
    whose = words.source_name(_source(evidence, comparison))
    layers = f"{metric.layer} against {metric.layer if same else other}"
    return Verdict(
        _claim(evidence, comparison, observers),
        comparison.verdict,
        _ANSWERS[comparison.verdict],
        f"{how.signed(comparison.difference)} {how.unit}".strip(),
        how.interval(comparison.low, comparison.high),
        f"n\u00a0{count(comparison.n)} {how.counted} · {whose} · {layers}{_alone(comparison)}",
        low,
        middle,
        high,
    )


def _alone(comparison: Comparison) -> str:
    """Say so where a verdict does not stand among many."""
    stands = comparison.verdict_corrected in (None, comparison.verdict)
    return "" if stands else " · not when all metrics are looked at together"


def _source(evidence: Evidence, comparison: Comparison) -> str:
    metric = MetricId.parse(comparison.metric)
    score = evidence.score_at(Place(comparison.model, metric.layer), metric.prefix, metric.stem)
    return score.source if score else str(evidence.dataset["source"])


def _claim(evidence: Evidence, comparison: Comparison, observers: str) -> str:
    metric, other = MetricId.parse(comparison.metric), against(comparison.against)
    where = _where(evidence, metric)
    if metric.family == "agreement":
        extra = "" if evidence.after and metric.layer == evidence.after.layer else f", at its {metric.layer} layer"
        return f"Closer to {observers} than {other}{where}{extra}"
    if metric.family == "fewshot":
        return f"Better at few-shot learning ({_pictures(metric.stem)}) than {other}{where}"
    source = _source(evidence, comparison)
    who = words.OBSERVERS.get(source, source)
    return {
        "accuracy": f"Picks the odd one out that {who} picked, more often than {other}",
        "rsa.spearman": f"Finds alike what {who} rated alike, more than {other}",
        "ece.before": f"Better calibrated than {other} as it comes",
        "ece.after": f"Better calibrated than {other}, both with a fitted temperature",
        "entropy_rt.spearman": f"In doubt where {observers} take longer, more than {other}",
        "grouping.ami": f"Clusters nearer to the named groups than those of {other}",
    }[metric.stem] + where


def _where(evidence: Evidence, metric: MetricId) -> str:
    if metric.stem in _RECORDED:
        return f", on {metric.dataset}"
    if metric.prefix == f"{evidence.name}/{HELDOUT}":
        return ""
    return f", on {words.tasks_name(evidence.tasks) if _is_main(evidence, metric) else split_name(metric.split)}"


def _pictures(stem: str) -> str:
    shots = stem.rpartition(".k")[2]
    return f"{shots} picture{'' if shots == '1' else 's'} a class"


def headline(evidence: Evidence, observers: str) -> Headline:
    """Return the title, which is the answer, the numbers that it rests on, and the other answers in short."""
    before, after = evidence.before, evidence.after
    lede = _lede(evidence, observers)
    if after is None:
        return Headline(f"How near is “{before.model}” to {observers}?", lede, [])
    metric = f"{evidence.name}/{HELDOUT}/agreement.all@{after.layer}"
    verdicts = {
        one.against: one.verdict
        for one in evidence.results.comparisons
        if (one.model, one.metric) == (after.model, metric)
    }
    verdict = verdicts.get(before.model)
    mine, other = subject(after.model), against(before.model)
    short = _short(evidence, observers)
    if verdict is None:
        return Headline(f"{mine} and {other}, side by side", lede, short)
    if verdict == "no difference seen":
        return Headline(f"{mine} is no closer to {observers} than {other}, as far as can be seen", lede, short)
    title = f"{mine} is {'closer to' if verdict == 'better' else 'further from'} {observers} than {other}"
    return Headline(title, lede + _control(verdicts), short)


def _control(verdicts: Mapping[str, str]) -> str:
    if "control" not in verdicts:
        return " There is no control here, so what the answers taught is not told from what training alone changes."
    if verdicts["control"] != "better":
        return " The control, trained alike without the answers, does as well: the gain need not come from them."
    return " It is also closer than the control, which was trained alike without the answers."


def _lede(evidence: Evidence, observers: str) -> str:
    scored = [(place.model, score) for place in evidence.pair if (score := evidence.score(place, "agreement.all"))]
    if not scored:
        return ""
    how = measure("agreement")
    parts = [f"in {how.number(score.value)} % {how.interval(score.low, score.high)}" for _, score in scored]
    said = f"{subject(scored[-1][0])} agrees with {observers} {parts[-1]} of cases"
    if len(scored) > 1:
        said += f", {against(scored[0][0])} {parts[0]}"
    return f"Which of three is the odd one out? {said}. {_limits(scored[-1][1])}"


def _limits(score: Score) -> str:
    how = measure("agreement")
    known = [f"guessing gives {how.number(score.chance)} %"] if score.chance is not None else []
    if score.ceiling is not None:
        known.append(f"knowing all about their answers would give {how.number(score.ceiling)} %")
    said = " and ".join(known) or "neither chance nor ceiling is known"
    return f"{said[0].upper()}{said[1:]} (n\u00a0{count(score.n)} {how.counted})."


def _short(evidence: Evidence, observers: str) -> list[Answer]:
    """Return the main verdicts against the base model, at the layer that a user meets."""
    after = evidence.after
    assert after is not None
    found = []
    for stem in _SHORT:
        for comparison in _comparisons(evidence, stem):
            metric = MetricId.parse(comparison.metric)
            if (metric.layer, comparison.against) == (after.layer, evidence.before.model) and _is_main(
                evidence, metric
            ):
                found.append(_answer(evidence, comparison, metric, observers))
    return found


def _answer(evidence: Evidence, comparison: Comparison, metric: MetricId, observers: str) -> Answer:
    how = measure(metric.stem).fine_enough(comparison.low, comparison.high)
    source = _source(evidence, comparison)
    who = words.OBSERVERS.get(source, source)
    question = {
        "agreement.all": f"Closer to {observers}?",
        "accuracy": f"Closer to what {who} answered?",
        "rsa.spearman": f"Closer to what {who} rated?",
        "fewshot.k1": "Better from one picture?",
        "fewshot.k5": "Better from five pictures?",
        "entropy_rt.spearman": "In doubt where they are slow?",
    }[metric.stem]
    scores = [
        evidence.score_at(Place(model, layer), metric.prefix, metric.stem)
        for model, layer in (evidence.after or evidence.before, evidence.before)
    ]
    levels = " against ".join(how.number(score.value) for score in scores if score)
    parts = [
        levels,
        metric.dataset if metric.stem in _RECORDED else "",
        f"n\u00a0{count(comparison.n)} {how.counted}",
        words.source_name(source),
    ]
    answer = _ANSWERS[comparison.verdict]
    return Answer(
        question,
        comparison.verdict,
        answer[0].upper() + answer[1:],
        f"{how.signed(comparison.difference)} {how.unit}".strip(),
        how.interval(comparison.low, comparison.high),
        "\u00a0· ".join(part for part in parts if part) + _alone(comparison),
    )
