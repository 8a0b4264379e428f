from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from evaluation.conftest import make_data
from likemind.artifacts import read_json
from likemind.errors import LikemindError
from likemind.evaluation.suite import evaluate
from likemind.student.card import model_card, with_results
from likemind.student.model import AlignedModel
from student.hub import front_matter_errors
from student.test_model import build

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

TEACHER = {
    "backbone_name": "timm/vit_base_patch14_dinov2.lvd142m",
    "penalty": 0.01,
    "answers": 18000,
    "triplets": 6000,
    "items": 457,
    "source": "human",
    "agreement_unseen": 0.472,
    "agreement_unseen_identity": 0.438,
    "ceiling": 0.77,
}
ROWS: list[dict[str, Any]] = [
    {"shipped": "backbone", "alpha": 1.0, "beta": 0.0, "agreement": 0.48, "fewshot": 0.87},
    {"shipped": "mix", "alpha": 1.0, "beta": 0.3, "agreement": 0.5, "fewshot": float("nan")},
]
FIGURES: dict[str, Any] = {
    "images": 4000,
    "steps": 90,
    "control": False,
    "source": "human",
    "base": ROWS[0],
    "candidates": ROWS,
    "shipped": ROWS[1],
}
NASTY = "a | b\n\n# <script>x</script> `code` [link](javascript:x) *stars* --- \\"


def card(figures: dict[str, Any] | None = None, **facts: Any) -> str:
    model = build()
    given = {"base": "/home/ann/secret/backbone", "target": "mixture", "control": False, "licences": {}, **facts}
    model.config = model.config.model_copy(update={"facts": given})
    return model_card(model, FIGURES if figures is None else figures)


def front(text: str) -> dict[str, Any]:
    assert front_matter_errors(text) == []
    told: dict[str, Any] = yaml.safe_load(text.split("---\n")[1])
    return told


def tables(text: str) -> list[list[str]]:
    """Every table's rows; each must have as many cells as its head."""
    found = re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE)
    for rows in found:
        cells = {len(re.findall(r"(?<!\\)\|", row)) for row in rows.splitlines()}
        assert len(cells) == 1, rows
    return [rows.splitlines() for rows in found]


def test_what_the_hub_reads() -> None:
    told = front(card(base_model="timm/vit_base_patch14_dinov2.lvd142m", base_licence="Apache-2.0"))
    assert told["base_model"] == "timm/vit_base_patch14_dinov2.lvd142m"
    assert (told["license"], told["library_name"]) == ("apache-2.0", "likemind")
    assert told["pipeline_tag"] == "image-feature-extraction"
    assert "human-alignment" in told["tags"]
    for licence in ("", "my own: [terms]", "Apache 2\nbase_model: evil/one"):
        told = front(card(base_licence=licence))
        assert told["license"] == "unknown"
        assert "base_model" not in told


def test_what_a_reader_finds() -> None:
    text = card(teacher=TEACHER, recipe={"beta": 0.6, "pull": 5.0, "max_loss": 0.5}, licences={"photos": "CC BY 4.0"})
    for heading in ("What it is for", "How it was made", "What is shipped, and why", "Limits", "Licences", "Citation"):
        assert f"\n## {heading}\n" in text
    assert "18,000 on 6,000 triplets of 457 items, source `human`: people’s recorded answers" in text
    assert "0.438 untransformed, 0.472 fitted; ceiling 0.770" in text
    assert "at most 0.5 points of few-shot accuracy (the mean of 1- and 5-shot)" in text
    assert "- photos: CC BY 4.0." in text
    assert "10.1038/s41586-025-09631-6" in text
    assert "Not evaluated yet" in text
    assert "simulated" not in text
    assert "/home/ann" not in text  # folders of whoever trained it are nobody's business
    made, shipped = tables(text)
    assert made[2] == "| base | `backbone`, architecture `test_vit` |"
    assert shipped[-1] == "| **shipped** | mix | 1.0 | 0.3 | 0.500 | – |"
    assert not re.search(r"\n\n\n", text)


@pytest.mark.parametrize("source", ["simulated", "human_model"])
def test_answers_that_are_not_people_s_are_said_to_be_so(source: str) -> None:
    words = {
        "simulated": "come from simulated observers and not from people",
        "human_model": "come from a model of people",
    }
    taught = card({**FIGURES, "source": "human"}, teacher=TEACHER | {"source": source})
    judged = card({**FIGURES, "source": source}, teacher=TEACHER)
    for text in (taught, judged):
        assert words[source] in text.split("## ")[0]


def test_a_control_and_what_nothing_was_held_out_for() -> None:
    assert "distilled without human signal" in card(control=True)
    text = card({"images": 3, "steps": 1, "control": False})
    assert "What is shipped, and why" not in text
    assert "Nothing was held out to choose by" in text
    assert len(tables(text)) == 1


def test_text_from_data_stays_text() -> None:
    """Newlines, pipes, tags and backticks, wherever they come from."""
    text = card(base=NASTY, base_licence=NASTY, teacher=TEACHER | {"backbone_name": NASTY}, licences={NASTY: NASTY})
    assert front(text)["license"] == "unknown"
    tables(text)
    assert "\n# <script>" not in text
    assert not re.search(r"(?<!\\)<script", re.sub(r"`[^`\n]*`", "", text))
    assert len(re.findall(r"^## ", text, re.MULTILINE)) == 7
    assert text.count("\n- ") == 3 + 4 + 1  # tags, limits, and one licence


@pytest.fixture(scope="module")
def judged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("judged")
    make_data(place / "data")
    build().save_pretrained(place / "m")
    build("backbone", head=False).save_pretrained(place / "plain")
    models = {"base": place / "plain", "mine": place / "m"}
    evaluate(models, data=place / "data", out=place / "results", suite="human,generalisation")
    return place


def test_results_fill_the_evaluation(judged: Path, tmp_path: Path) -> None:
    model = AlignedModel.from_pretrained(judged / "m")
    model.card = card()
    model.save_pretrained(tmp_path / "new", results=judged / "results")
    again = AlignedModel.from_pretrained(tmp_path / "new")
    text = again.card
    assert text is not None
    assert "Not evaluated yet" not in text
    assert "Evaluated as “mine”, at layer `shipped`" in text
    assert "Source of the answers, `simulated`" in text
    *_, scores, comparisons = tables(text)
    results = read_json(judged / "results" / "results.json")
    mine = [s for s in results["scores"] if s["model"] == "mine" and s["metric"].endswith("@shipped")]
    assert len(scores) - 2 == len(mine) > 5
    for row, score in zip(scores[2:], mine, strict=True):
        assert row.startswith(
            f"| {score['metric']} | {score['value']:.3f} | {score['low']:.3f} to {score['high']:.3f} |"
        )
    assert comparisons[2].startswith("| toys/heldout/agreement.all@shipped | base | ")
    # once more: replaced, not repeated; and what stands around it is left alone
    assert again.key == model.key
    again.save_pretrained(tmp_path / "newer", results=judged / "results")
    assert (tmp_path / "newer" / "README.md").read_text() == text
    assert text.split("## Limits")[1] == model.card.split("## Limits")[1]


def test_a_card_without_the_section_gets_it(judged: Path) -> None:
    key = AlignedModel.from_pretrained(judged / "plain").key
    text = with_results("# Mine\n", key, judged / "results")
    assert text.startswith("# Mine\n\n## Evaluation\n")
    assert "Evaluated as “base”, at layer `backbone`." in text
    assert with_results(text, key, judged / "results") == text
    AlignedModel.from_pretrained(judged / "m").save_pretrained(judged / "carded", results=judged / "results")
    assert front((judged / "carded" / "README.md").read_text()) == {"library_name": "likemind"}


def _other(model: AlignedModel) -> None:
    model.centre = model.centre + 1


def _sharper(model: AlignedModel) -> None:
    model.config = model.config.model_copy(update={"temperatures": {"shipped": 0.01}})


@pytest.mark.parametrize("change", [_other, _sharper])
def test_results_of_another_model_are_refused(
    judged: Path, tmp_path: Path, change: Callable[[AlignedModel], None]
) -> None:
    model = AlignedModel.from_pretrained(judged / "m")
    change(model)
    with pytest.raises(LikemindError, match="results judges base, mine and not this model as it is: evaluate it first"):
        model.save_pretrained(tmp_path / "new", results=judged / "results")
    assert not (tmp_path / "new").exists()
    with pytest.raises(LikemindError, match="is not an output of `likemind evaluate`"):
        model.save_pretrained(tmp_path / "new", results=judged / "data")
