from __future__ import annotations

from copy import deepcopy
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from evaluation.conftest import tiny_backbone
from likemind.alignment.batches import Batch
from likemind.alignment.trainee import HEAD_WIDTH, Student, student_loss
from likemind.backbones.timm import load_backbone
from likemind.choice import PAIRS
from likemind.features.embed import embed_rows

from .conftest import quick

if TYPE_CHECKING:
    from likemind.alignment.known import Known
    from likemind.alignment.recipe import Recipe

    from .conftest import World


def pixels(world: World, positions: np.ndarray) -> torch.Tensor:
    return torch.stack([world.backbone.preprocessing(world.images.read(int(p))) for p in positions])


def moved(student: Student, size: float = 0.05) -> Student:
    """Somewhere away from the start, where no gradient vanishes by symmetry."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for value in student.learning.values():
            scale = size * max(0.1, float(value.detach().std()) if value.numel() > 1 else 0.0)
            value.add_(scale * torch.randn(value.shape, generator=generator, dtype=value.dtype))
    return student


def loss_of(student: Student, world: World, known: Known, recipe: Recipe, batch: Batch) -> dict[str, torch.Tensor]:
    return student_loss(student, student(pixels(world, batch.images)), batch, known, recipe)


RECIPES: list[dict[str, Any]] = [
    {"target": "mixture"},
    {"target": "mixture", "objective": "kl", "temperature": 1.5, "target_temperature": 0.7},
    {"target": "mixture", "batching": "independent"},
    {"target": "paper", "objective": "hard", "similarity": "cosine", "temperature": 0.2},
    {"target": "paper", "temperature": 2.0},
    {"target": "paper", "head": "random", "temperature": 20.0},
]


@pytest.mark.parametrize("changes", RECIPES)
@pytest.mark.parametrize("name", ["test_efficientnet", "test_resnet", "test_vit"])
def test_every_weight_of_the_backbone_learns(world: World, name: str, changes: dict[str, Any]) -> None:
    backbone, known = world.backbone, world.known()
    if name != "test_efficientnet":
        torch.manual_seed(0)
        backbone = load_backbone(name, weights="random") if name == "test_vit" else tiny_backbone(0, name)
        known = world.known(backbone=backbone, features=None, folder=world.place / f"known-{name}")
        known.teacher = None
        rows = embed_rows(world.images, range(len(world.images)), backbone)[0]
        known.__dict__ |= {
            "base_rows": rows,
            "taught": rows @ np.random.default_rng(0).normal(size=(rows.shape[1], 5)).astype(np.float32),
            "own_teacher": False,
            "clusters": world.known().clusters,
        }
        changes = changes | {"head": "random"}
    recipe = quick(images=16, triplets=128, **changes)
    student = moved(Student.start(backbone, known, recipe, 0))
    size = backbone.preprocessing.size
    batch = known.batch(recipe, 0, 0)
    inputs = torch.nn.functional.interpolate(pixels(world, batch.images), size=(size, size))
    student_loss(student, student(inputs), batch, known, recipe)["loss"].backward()
    for key, value in student.backbone.named_parameters():
        assert value.grad is not None, key
        assert torch.isfinite(value.grad).all(), key
        if not key.endswith("k_norm.bias") and "head" not in key:
            assert (value.grad != 0).any(), key
    trained_head = [value.grad is not None for key, value in student.named_parameters() if key.startswith("head.")]
    assert all(trained_head) if recipe.target == "paper" else not any(trained_head)


@pytest.mark.parametrize("changes", RECIPES)
def test_a_packed_gradient_is_that_of_every_triplet_by_itself(world: World, changes: dict[str, Any]) -> None:
    """In float64: many triplets over few images, against three images at a time and a loss that is written out."""
    known = world.known()
    recipe = quick(images=8, clusters=4, triplets=14, row_weight=0.0, **changes)
    batch = known.batch(recipe, 0, 0)
    packed = moved(Student.start(world.backbone, known, recipe, 0).double())
    plain = deepcopy(packed)
    inputs = pixels(world, batch.images).double()
    loss = student_loss(packed, packed(inputs), batch, known, recipe)["loss"]
    loss.backward()

    base = torch.from_numpy(known.base_rows[batch.images]).double() - plain.centre
    taught = torch.from_numpy(known.taught[batch.images]).double()

    def unit(rows: torch.Tensor) -> torch.Tensor:
        return rows / rows.norm(dim=1, keepdim=True)

    total = torch.zeros((), dtype=torch.float64)
    for row in batch.triplets.tolist():
        pooled = plain(inputs[row])
        if recipe.target == "mixture":
            new, old, human = unit(pooled - plain.centre), unit(base[row]), unit(taught[row])
            q = [recipe.sharpness * new[a] @ new[b] / recipe.temperature for a, b in PAIRS]
            p = [
                recipe.sharpness * ((1 - recipe.beta) * old[a] @ old[b] + recipe.beta * human[a] @ human[b])
                for a, b in PAIRS
            ]
        else:
            assert plain.head is not None
            z = plain.head(pooled)
            z = unit(z) if recipe.similarity == "cosine" else z
            q = [z[a] @ z[b] / recipe.temperature for a, b in PAIRS]
            p = [taught[row[a]] @ taught[row[b]] for a, b in PAIRS]
        P, Q = (torch.stack(p) / recipe.target_temperature).softmax(0), torch.stack(q).softmax(0)
        M = (P + Q) / 2
        total = (
            total
            + {
                "jensen_shannon": ((P * (P / M).log()).sum() + (Q * (Q / M).log()).sum()) / 2,
                "kl": (P * (P / Q).log()).sum(),
                "hard": -Q[P.argmax()].log(),
            }[recipe.objective]
        )
    total = total / len(batch.triplets)
    total.backward()
    assert loss.item() == pytest.approx(total.item(), abs=1e-6)  # the teacher's features are float32
    scale = max(float(value.grad.abs().max()) for value in plain.backbone.parameters() if value.grad is not None)
    worst = 0.0
    for (key, ours), (_, theirs) in zip(packed.named_parameters(), plain.named_parameters(), strict=True):
        if theirs.grad is None:
            assert ours.grad is None, key
        else:
            assert ours.grad is not None
            worst = max(worst, float((ours.grad - theirs.grad).abs().max()))
    assert scale > 1e-6
    assert worst < 1e-6 * scale + 1e-9


def test_packing_itself_is_exact(world: World) -> None:
    """The same triplets over one group of images, and each over a group of its own, to 1e-9 in float64."""
    known, recipe = world.known(), quick(images=8, clusters=4, triplets=14, row_weight=0.0)
    for features in ("base_rows", "taught"):
        known.__dict__[features] = getattr(known, features).astype(np.float64)
    batch = known.batch(recipe, 0, 0)
    packed = moved(Student.start(world.backbone, known, recipe, 0).double())
    plain = deepcopy(packed)
    loss_of_packed = student_loss(packed, packed(pixels(world, batch.images).double()), batch, known, recipe)["loss"]
    loss_of_packed.backward()
    for row in batch.triplets:
        own = Batch(batch.images[row], np.array([[0, 1, 2]]))
        rows = plain(pixels(world, own.images).double())
        (student_loss(plain, rows, own, known, recipe)["loss"] / len(batch.triplets)).backward()
    for (key, ours), (_, theirs) in zip(
        packed.backbone.named_parameters(), plain.backbone.named_parameters(), strict=True
    ):
        assert ours.grad is not None
        assert theirs.grad is not None
        assert float((ours.grad - theirs.grad).abs().max()) < 1e-9 * max(1.0, float(theirs.grad.abs().max())), key


def test_labels_from_a_file_give_the_loss_of_the_same_labels_on_the_fly(world: World) -> None:
    known, recipe = world.known(), quick(target="paper", images=12, triplets=40, temperature=3.0)
    batch = known.batch(recipe, 0, 0)
    taught = known.taught[batch.images]
    written = np.stack([(taught[batch.triplets[:, a]] * taught[batch.triplets[:, b]]).sum(1) for a, b in PAIRS], axis=1)
    student = moved(Student.start(world.backbone, known, recipe, 0))
    pooled = student(pixels(world, batch.images))
    fly = student_loss(student, pooled, batch, known, recipe)["loss"].item()
    file = student_loss(student, pooled, Batch(batch.images, batch.triplets, written), known, recipe)["loss"].item()
    assert file == pytest.approx(fly, rel=1e-4)
    assert fly > 1e-4


def test_accuracy_is_the_share_of_triplets_where_both_choose_the_same(world: World) -> None:
    known, recipe = world.known(), quick(beta=1.0)
    student = moved(Student.start(world.backbone, known, recipe, 0))
    batch = known.batch(recipe, 0, 0)
    pooled = student(pixels(world, batch.images)).detach()
    new = torch.nn.functional.normalize(pooled - student.centre).numpy()
    human = known.taught[batch.images] / np.linalg.norm(known.taught[batch.images], axis=1, keepdims=True)
    same = [
        np.argmax([new[row[a]] @ new[row[b]] for a, b in PAIRS])
        == np.argmax([human[row[a]] @ human[row[b]] for a, b in PAIRS])
        for row in batch.triplets
    ]
    found = student_loss(student, pooled, batch, known, recipe)["accuracy"].item()
    assert found == pytest.approx(np.mean(same), abs=2 / len(same))
    assert 0.4 < found < 0.99


def test_the_parts_add_up(world: World) -> None:
    known, recipe = world.known(), quick(row_weight=0.7)
    student = moved(Student.start(world.backbone, known, recipe, 0))
    parts = loss_of(student, world, known, recipe, known.batch(recipe, 0, 0))
    assert parts["loss"].item() == pytest.approx(parts["triplets"].item() + 0.7 * parts["rows"].item(), rel=1e-5)
    assert set(parts) == {"loss", "triplets", "rows", "accuracy"}


def test_without_the_teacher_the_mixture_asks_for_what_is_there(world: World) -> None:
    """β = 0: the target is the student's own old similarities, so the start is perfect."""
    known, recipe = world.known(), quick(beta=0.0)
    student = Student.start(world.backbone, known, recipe, 0)
    batch = known.batch(recipe, 0, 0)
    assert loss_of(student, world, known, recipe, batch)["loss"].item() == pytest.approx(0, abs=1e-5)
    assert loss_of(student, world, known, quick(beta=0.8), batch)["loss"].item() > 0.01


def test_the_control_learns_the_untransformed_teacher(world: World) -> None:
    control, taught = world.known(control=True), world.known()
    plain = (control.base_rows - world.teacher.mean_) / world.teacher.identity_scale_
    np.testing.assert_allclose(control.taught, plain, atol=1e-5)
    assert np.abs(taught.taught - plain).max() > 0.1
    recipe = quick(beta=1.0)
    student = Student.start(world.backbone, control, recipe, 0)
    batch = control.batch(recipe, 0, 0)
    assert loss_of(student, world, control, recipe, batch)["loss"].item() == pytest.approx(0, abs=1e-4)
    assert loss_of(student, world, taught, recipe, batch)["loss"].item() > 0.01
    assert student.head is not None
    np.testing.assert_allclose(
        student.head.weight.numpy(), np.eye(world.backbone.dim) / world.teacher.identity_scale_, atol=1e-6
    )


def test_the_head_starts_as_the_teacher(world: World) -> None:
    known = world.known()
    for target in ("mixture", "paper"):
        student = Student.start(world.backbone, known, quick(target=target), 0)
        assert student.head is not None
        with torch.no_grad():
            rows = student.head(torch.from_numpy(known.base_rows)).numpy()
        np.testing.assert_allclose(rows, known.taught, atol=1e-4)
        assert all(value.requires_grad == (target == "paper") for value in student.head.parameters())


def test_a_random_head_is_flaxs(world: World) -> None:
    recipe = quick(target="paper", head="random")
    first, again, other = (Student.start(world.backbone, world.known(), recipe, seed).head for seed in (0, 0, 1))
    assert first is not None
    assert again is not None
    assert other is not None
    width = world.backbone.dim
    assert first.weight.shape == (HEAD_WIDTH, width)
    assert torch.equal(first.weight, again.weight)
    assert not torch.equal(first.weight, other.weight)
    assert first.weight.std().item() == pytest.approx(width**-0.5, rel=0.02)
    assert first.weight.abs().max().item() <= 2.0001 * width**-0.5 / 0.87962566
    assert (first.bias == 0).all()


def test_alpha_goes_from_the_base_to_the_student(world: World) -> None:
    known, recipe = world.known(), quick()
    student = moved(Student.start(world.backbone, known, recipe, 0), size=0.3)
    base, _ = embed_rows(world.images, range(6), world.backbone)
    at = {alpha: student.at(alpha) for alpha in (0.0, 0.25, 1.0)}
    np.testing.assert_array_equal(embed_rows(world.images, range(6), at[0.0].backbone)[0], base)
    assert at[0.0].backbone.weights_hash == world.backbone.weights_hash
    with torch.inference_mode():
        trained = student.to(memory_format=torch.channels_last)(  # type: ignore[call-overload]
            pixels(world, np.arange(6)).contiguous(memory_format=torch.channels_last)
        )
    np.testing.assert_array_equal(embed_rows(world.images, range(6), at[1.0].backbone)[0], trained.numpy())
    assert np.abs(trained.numpy() - base).max() > 1e-3
    for (key, first), quarter, last in zip(
        world.backbone.module.named_parameters(),
        at[0.25].backbone.module.parameters(),
        at[1.0].backbone.module.parameters(),
        strict=True,
    ):
        torch.testing.assert_close(quarter, 0.75 * first + 0.25 * last, msg=key)
    np.testing.assert_allclose(at[1.0].centre, known.base_rows.mean(0), rtol=1e-6)
    assert at[0.25].config.alpha == 0.25


def test_it_stays_in_evaluation_mode_and_leaves_its_backbone_alone(world: World) -> None:
    before = world.backbone.fingerprint
    student = Student.start(world.backbone, world.known(), quick(), 0)
    assert not student.train().training
    assert not any(part.training for part in student.modules())
    moved(student, size=1.0)
    assert world.backbone.fingerprint == before
    assert student.about.fingerprint == before
    assert student.at(1.0).backbone.fingerprint != before
