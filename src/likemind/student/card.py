"""The model card: what the model is, how to load it, what it was trained on, how it did on validation objects."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import jinja2

if TYPE_CHECKING:
    from likemind.student.model import AlignedModel

_CARD = """---
library_name: likemind
tags: [human-alignment, image-feature-extraction, timm]
---

# {{ facts.base | e }}, {{ "the control: distilled without human signal" if facts.control else "aligned with human similarity" }}

Made by Likemind, after AligNet (Muttenthaler et al., Nature 2025). Target: `{{ facts.target }}`; trained on
{{ figures.images }} images for {{ figures.steps }} steps{% if facts.control %}, on the *untransformed* teacher's similarities{% endif %}.

```python
import likemind

model = likemind.AlignedModel.from_pretrained("FOLDER_OR_HUB_ID")
embedding = model.encode(["lizard.png", "leaf.png"])  # the shipped layer: {{ model.config.shipped }}{{ mixed }}
```

Without Likemind, plain timm loads the backbone (layer `backbone`):

```python
timm.create_model("local-dir:FOLDER/backbone", pretrained=True, num_classes=0)
```

Preprocessing: {{ recipe.size }}×{{ recipe.size }} pixels, {{ recipe.resize }}, {{ recipe.interpolation }}, mean {{ recipe.mean | list }}, std {{ recipe.std | list }}.
Embeddings are L2-normalised; the backbone's are centred on the training images' mean first.
{% if figures.shipped %}
## On validation objects

Objects and categories that neither teacher nor student has seen; they chose what is shipped, so they are not a test.
Answers: **{{ figures.source }}**{% if figures.source == "simulated" %}, that is, from simulated observers and not from people{% endif %}.

| | layer | α of the weights | β of the head | agreement | 5-shot |
|---|---|---|---|---|---|
| base | backbone | 0 | 0 | {{ "%.3f" % figures.base.agreement }} | {{ "%.3f" % figures.base.fewshot }} |
{% for row in figures.candidates -%}
| {{ "**shipped**" if row == figures.shipped else "" }} | {{ row.shipped }} | {{ row.alpha }} | {{ row.beta }} | {{ "%.3f" % row.agreement }} | {{ "%.3f" % row.fewshot }} |
{% endfor %}
{%- endif %}
## Licences

The weights follow the base model's licence.{% for what, licence in facts.licences.items() %} {{ what | e }}: {{ licence | e }}.{% endfor %}
"""  # noqa: E501


def model_card(model: AlignedModel, figures: dict[str, Any]) -> str:
    """Return the card's Markdown.

    Args:
        model: With its facts in ``config``.
        figures: What ``align`` measured.
    """
    environment = jinja2.Environment(autoescape=False, undefined=jinja2.StrictUndefined, keep_trailing_newline=True)  # noqa: S701
    mixed = f", β = {model.config.beta}" if model.config.shipped == "mix" else ""
    return environment.from_string(_CARD).render(
        model=model,
        facts=model.config.facts,
        figures={"shipped": None, **figures},
        recipe=model.backbone.preprocessing,
        mixed=mixed,
    )
