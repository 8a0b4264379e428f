"""The model card: what the model is for, how it was made, what was shipped and why, how it did, and its licences."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jinja2

from likemind.artifacts import PathLike, read_json, read_run, versions
from likemind.errors import LikemindError

if TYPE_CHECKING:
    from likemind.student.model import AlignedModel

_BEGIN, _END = "<!-- evaluation -->", "<!-- end of evaluation -->"
_LICENCES = (
    "apache-2.0",
    "mit",
    "bsd-3-clause",
    "cc-by-4.0",
    "cc-by-sa-4.0",
    "cc-by-nc-4.0",
    "cc-by-nc-sa-4.0",
    "gpl-3.0",
)
"""Of the Hub's identifiers, those that timm's models carry."""

_SOURCES = {
    "human": "people’s recorded answers",
    "human_model": "a model of people (fitted to their answers), not people themselves",
    "simulated": "simulated observers, not people",
}
_NOTICES = {
    "simulated": "**The answers behind this model come from simulated observers and not from people.** "
    "It shows that the method runs; it is no evidence about people.",
    "human_model": "**The answers behind this model come from a model of people, not from people themselves.**",
}
_TIMM = """import timm

backbone = timm.create_model("local-dir:FOLDER/backbone", pretrained=True, num_classes=0)"""
_CARD = """---
library_name: likemind
pipeline_tag: image-feature-extraction
license: {{ licence }}
{% if facts.base_model %}
base_model: {{ facts.base_model | yaml }}
{% endif %}
tags:
- human-alignment
- odd-one-out
{% if library != "module" %}
- {{ library }}
{% endif %}
---

# {{ architecture | words }}, {{ "the control: distilled without human signal" if facts.control else "aligned with human similarity" }}

{% if notice %}
{{ notice }}

{% endif %}
{% if facts.control %}
A control (UnAligNet). It was trained like an aligned model, on the similarities of the *untransformed* teacher. What an
aligned model has more than this one is what the answers taught.
{% else %}
An image encoder that was fine-tuned towards the similarities that people see. Made by Likemind, after AligNet
(Muttenthaler et al., *Nature* 2025). How near it came stands under “Evaluation”.
{% endif %}

## What it is for

Comparing images: search, grouping, nearest neighbours, the odd one out of three, and how divided people would be about it.
It is not for recognising persons, nor for decisions about them. It does not name what it sees.

```python
import likemind

model = likemind.AlignedModel.from_pretrained("FOLDER_OR_HUB_ID")
embedding = model.encode(["lizard.png", "leaf.png"])  # layer "shipped": {{ model.config.shipped }}{{ mixed }}
odd, probabilities = model.odd_one_out([["lizard.png", "leaf.png", "snake.png"]])
```

{% if library == "module" %}
`FOLDER/backbone/model.safetensors` is the state dict of the class `{{ kind | code }}`. Pass a module of it: `from_pretrained(…, backbone=module)`.
{% else %}
Without Likemind, plain {{ library }} loads the backbone (layer `backbone`, not centred):

```python
{{ snippet }}
```
{% endif %}

Preprocessing: {{ recipe.size }}×{{ recipe.size }} pixels, {{ recipe.resize }}, {{ recipe.interpolation }}, mean {{ recipe.mean | list }}, std {{ recipe.std | list }}.
Embeddings have unit length; the backbone's are centred on the training images' mean first.

## How it was made

| | |
|---|---|
| base | {{ (facts.base_model or facts.base) | shortened }}, architecture `{{ architecture | code }}` |
{% if teacher %}
| teacher | one affine map on the features of {{ teacher.get("backbone_name", "its backbone") | shortened }}{% if teacher.get("penalty") is not none %}, penalty {{ teacher.penalty }}{% else %}, the identity{% endif %} |
{% if teacher.get("answers") %}
| its answers | {{ "{:,}".format(teacher.answers) }} on {{ "{:,}".format(teacher.triplets) }} triplets of {{ "{:,}".format(teacher["items"]) }} items, source `{{ teacher.source }}`: {{ sources.get(teacher.source, "") }} |
| its agreement on triplets with unseen objects (cross-validation) | {{ teacher.agreement_unseen_identity | number }} untransformed, {{ teacher.agreement_unseen | number }} fitted; ceiling {{ teacher.ceiling | number }} |
{% endif %}
{% endif %}
| images | {{ "{:,}".format(figures.images) }}, without labels |
| target | `{{ facts.target }}`, {{ figures.steps }} steps{% if facts.target == "mixture" %}, share of the teacher {{ plan.get("beta") }}{% endif %}, pull to the first weights {{ plan.get("pull") }} |
{% if figures.shipped %}

## What is shipped, and why

Candidates were measured on validation objects and categories that neither teacher nor student has seen.
They chose what is shipped, so these numbers are not a test. Source `{{ figures.source }}`: {{ sources.get(figures.source, "") }}.
Kept is what loses at most {{ plan.get("max_loss") }} points of few-shot accuracy (the mean of 1- and 5-shot). Of that, all within two standard errors of the best
agreement count as equal, and the plainest is shipped.

| | layer | α of the weights | β of the head | agreement | few-shot |
|---|---|---|---|---|---|
| base | backbone | 0 | 0 | {{ figures.base.agreement | number }} | {{ figures.base.fewshot | number }} |
{% for row in figures.candidates %}
| {{ "**shipped**" if row == figures.shipped else "" }} | {{ row.shipped }} | {{ row.alpha }} | {{ row.beta }} | {{ row.agreement | number }} | {{ row.fewshot | number }} |
{% endfor %}
{% else %}

Nothing was held out to choose by: the backbone is shipped as it was trained, and no temperature is fitted.
{% endif %}

## Evaluation

{{ begin }}
Not evaluated yet on held-out objects.
{{ end }}

## Limits

- People differ, by culture and by person; one embedding is an average of those who were asked.
- Answers about odd ones out say nothing about qualities that they never turned on.
- What the base model learned, its faults included, is still there.
- Alignment can cost what depends on fine detail. Measure your own task at the layer that you use.

## Licences

The weights follow the base model's licence{% if facts.base_licence %} ({{ facts.base_licence | words }}){% else %}, which its files do not name{% endif %}. Check that the licences of the images and
of the answers allow what you plan.
{% if facts.licences %}

{% for what, licence in facts.licences.items() %}
- {{ what | words }}: {{ licence | words }}.
{% endfor %}
{% endif %}

## Citation

```bibtex
@article{muttenthaler2025aligning,
  title   = {Aligning machine and human visual representations across abstraction levels},
  author  = {Muttenthaler, Lukas and Greff, Klaus and Born, Frieda and Spitzer, Bernhard and Kornblith, Simon and
             Mozer, Michael C. and M{\\"u}ller, Klaus-Robert and Unterthiner, Thomas and Lampinen, Andrew K.},
  journal = {Nature},
  volume  = {647},
  pages   = {349--355},
  year    = {2025},
  doi     = {10.1038/s41586-025-09631-6}
}

@software{likemind,
  title   = {Likemind},
  author  = {{ "{{The Likemind developers}}" }}{% if version %},
  version = { {{- version -}} }
{% else %}

{% endif %}
}
```
"""  # noqa: E501

_EVALUATION = """
Held-out objects of `{{ dataset.name | code }}`, which neither teacher nor student has seen, and by which nothing was chosen. {{ dataset.about | words }}
Intervals are 95 % bootstrap. Evaluated as “{{ name | words }}”, at layer `{{ layer }}`{% if others %}; other layers are in `results.json`{% endif %}.
{% if dataset.source in sources %}
Source of the answers, `{{ dataset.source }}`: {{ sources[dataset.source] }}.
{% endif %}

| metric | value | 95 % | n | chance | ceiling | better | source |
|---|---|---|---|---|---|---|---|
{% for s in scores %}
| {{ s.metric | words }} | {{ s.value | number }} | {{ s.low | number }} to {{ s.high | number }} | {{ s.n }} | {{ s.chance | number }} | {{ s.ceiling | number }} | {{ "higher" if s.higher_is_better else "lower" }} | {{ s.source | words }} |
{% endfor %}
{% if comparisons %}

| metric | against | difference | 95 % | verdict |
|---|---|---|---|---|
{% for c in comparisons %}
| {{ c.metric | words }} | {{ c.against | words }} | {{ c.difference | signed }} | {{ c.low | signed }} to {{ c.high | signed }} | {{ c.verdict | words }}{% if c.get("verdict_corrected") not in (none, c.verdict) %} (not when all metrics are looked at){% endif %} |
{% endfor %}
{% endif %}
"""  # noqa: E501

_COMPARED = re.compile(r"/(agreement\.all|accuracy\.all|fewshot\.k\d+|ece\.after)@")


def model_card(model: AlignedModel, figures: dict[str, Any]) -> str:
    """Return the card's Markdown.

    Args:
        model: With its facts in ``config``.
        figures: What ``align`` measured.
    """
    facts = {"base_model": None, "base_licence": "", "teacher": None, "recipe": {}, **model.config.facts}
    own = str(facts["base_licence"])
    sources = [(facts["teacher"] or {}).get("source"), figures.get("source")]
    return (
        _environment()
        .from_string(_CARD)
        .render(
            model=model,
            facts=facts,
            teacher=facts["teacher"],
            plan=facts["recipe"],
            figures={"shipped": None, **figures},
            recipe=model.backbone.preprocessing,
            mixed=f", β = {model.config.beta}" if model.config.shipped == "mix" else "",
            architecture=model.backbone.config.get("class", model.backbone.config["architecture"]),
            library=model.backbone.library,
            kind=model.backbone.config.get("class", ""),
            snippet=model.backbone.config.get("snippet", _TIMM),
            licence=own.lower() if own.lower() in _LICENCES else "unknown",
            notice=next((_NOTICES[source] for source in ("simulated", "human_model") if source in sources), ""),
            sources=_SOURCES,
            begin=_BEGIN,
            end=_END,
            version=versions().get("likemind", ""),
        )
    )


def with_results(card: str, key: str, results: PathLike) -> str:
    """Return a card with what ``likemind evaluate`` found out about the model in its section “Evaluation”.

    Args:
        card: The card; one without that section gets it at its end.
        key: The model's ``key``; the results must be of this very model.
        results: An output of ``likemind evaluate``.

    Raises:
        LikemindError: These are no results, or they are of other models.
    """
    run = read_run(results, verb="evaluate")
    names = [place.removeprefix("model/") for place, other in run["inputs"].items() if other == key]
    if not names:
        judged = ", ".join(place.removeprefix("model/") for place in run["inputs"] if place.startswith("model/"))
        raise LikemindError(f"{results} judges {judged} and not this model as it is: evaluate it first")
    told = _evaluation(read_json(Path(results) / "results.json"), names[0])
    section = f"{_BEGIN}\n{told}{_END}"
    before, begin, rest = card.partition(_BEGIN)
    _, end, after = rest.partition(_END)
    return f"{before}{section}{after}" if begin and end else f"{card.rstrip()}\n\n## Evaluation\n\n{section}\n"


def _evaluation(results: dict[str, Any], name: str) -> str:
    mine = [score for score in results["scores"] if score["model"] == name]
    layers = list(dict.fromkeys(score["metric"].rpartition("@")[2] for score in mine))
    layer = "shipped" if "shipped" in layers else layers[0]
    scores = [score for score in mine if score["metric"].endswith(f"@{layer}")]
    comparisons = [
        one
        for one in results["comparisons"]
        if one["model"] == name and one["metric"].endswith(f"@{layer}") and _COMPARED.search(one["metric"])
    ]
    return (
        _environment()
        .from_string(_EVALUATION)
        .render(
            dataset=results["run"]["dataset"],
            name=name,
            layer=layer,
            others=len(layers) > 1,
            scores=scores,
            comparisons=comparisons,
            sources=_SOURCES,
        )
    )


def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        autoescape=False,  # noqa: S701 - it is Markdown, and ``words`` escapes it
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
        trim_blocks=True,
    )
    environment.filters |= {
        "words": _words,
        "code": _code,
        "shortened": _shortened,
        "yaml": lambda text: json.dumps(str(text)),
        "number": _number,
        "signed": lambda value: _number(value, signed=True),
    }
    return environment


def _words(text: object) -> str:
    """Text from data on one line, with nothing in it that Markdown or HTML would take for its own."""
    return re.sub(r"([\\`*\[\]<>|])", r"\\\1", " ".join(str(text).split()))


def _code(text: object) -> str:
    """Text from data that may stand between backticks, in a table too."""
    return re.sub(r"[`|]", "", " ".join(str(text).split()))


def _shortened(name: object) -> str:
    """A library's or the Hub's name as it is; of a folder on somebody's disk, its last part."""
    text = str(name)
    public = re.match(r"(timm|open_clip)/\w|hf/\w[\w.-]*/\w[\w.-]*(@|$)", text)
    kept = text if public else re.split(r"[\\/]", text.rstrip("\\/"))[-1]
    return f"`{_code(kept)}`"


def _number(value: float | None, *, signed: bool = False) -> str:
    if value is None or not math.isfinite(value):
        return "–"
    return f"{value:+.3f}" if signed else f"{value:.3f}"
