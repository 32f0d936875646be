"""Adversarial changes of images against their own definitions: objective, box, distance, and what a file keeps."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from ndissect.engine.experiments.adversarial import (
    CarliniWagner,
    ProjectedGradient,
    distances,
    in_8_bits,
    leads,
)
from ndissect.store.errors import NDError

SHAPE = (3, 6, 6)


def images(n: int, seed: int = 0, low: float = 0.2, high: float = 0.8) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return low + (high - low) * torch.rand((n, *SHAPE), generator=generator)


def linear(classes: int, seed: int = 1) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """The weights (K, pixels) of a linear network without bias, and its scores."""
    weight = torch.randn(classes, 108, generator=torch.Generator().manual_seed(seed)) / 4
    return weight, lambda x: x.flatten(1) @ weight.T


def convolutional(seed: int = 2) -> Callable[[Tensor], Tensor]:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU(), nn.Flatten())
        net.append(nn.Linear(32, 5))
    for p in net.parameters():
        p.requires_grad_(False)
    return lambda x: 5 * net(4 * x)


def others(scores: Tensor) -> Tensor:
    """The class after the predicted one, as the target."""
    return (scores.argmax(1) + 1) % scores.shape[1]


def test_the_smallest_change_of_a_linear_network_is_margin_by_difference_of_weights() -> None:
    weight, scores = linear(2)
    x = images(12)
    target = others(scores(x))
    changed = CarliniWagner(steps=300, searches=9, first=0.01)(scores, x, target)
    assert changed.reached.all()
    # Nothing meets the sides of [0, 1] here, so that the nearest image lies straight across the border.
    exact = -leads(scores(x), target) / (weight[0] - weight[1]).norm()
    found = distances(changed.pixels, x)
    assert (changed.pixels > 0.001).all() and (changed.pixels < 0.999).all()
    assert (found >= exact - 1e-5).all(), "nothing nearer reaches the target"
    assert (found <= 1.03 * exact + 1e-3).all()


def test_few_steps_as_by_default_come_near_it_too() -> None:
    weight, scores = linear(2)
    x = images(12)
    target = others(scores(x))
    exact = -leads(scores(x), target) / (weight[0] - weight[1]).norm()
    found = distances(CarliniWagner()(scores, x, target).pixels, x)
    assert (found <= 1.1 * exact + 5e-3).all()


@pytest.mark.parametrize("confidence", [0.0, 0.5])
def test_what_reaches_the_target_leads_by_the_confidence_within_the_box(confidence: float) -> None:
    scores = convolutional()
    x = images(8, low=0, high=1)
    x[0, :2] = (x[0, :2] > 0.5).float()  # pixels on the sides of the box
    target = others(scores(x))
    for changed in (
        CarliniWagner(steps=80, searches=5, confidence=confidence, rate=0.05)(scores, x, target),
        ProjectedGradient(epsilon=0.3, confidence=confidence)(scores, x, target, range(8)),
    ):
        assert changed.reached.sum() >= 6
        assert (changed.pixels >= 0).all() and (changed.pixels <= 1).all()
        there = scores(changed.pixels)
        assert (leads(there, target) > confidence)[changed.reached].all()
        assert (there.argmax(1) == target)[changed.reached].all()
        assert torch.equal(changed.pixels[~changed.reached], x[~changed.reached])


def test_the_objective_is_the_authors() -> None:
    """||x' - x||^2 + c max(max Z_k - Z_t, -kappa), by Adam as torch has it, one constant."""
    scores = convolutional()
    x, kappa, c, steps = images(3), 0.2, 30.0, 9
    target = others(scores(x))
    attack = CarliniWagner(steps=steps, searches=1, confidence=kappa, first=c, rate=0.01)
    seen: list[Tensor] = []

    def watched(pixels: Tensor) -> Tensor:
        seen.append(pixels.detach().clone())
        return scores(pixels)

    attack(watched, x, target)
    w = torch.atanh((2 * x - 1) * 0.999999).requires_grad_()
    adam = torch.optim.Adam([w], lr=0.01)
    for step in range(steps):
        changed = (torch.tanh(w) + 1) / 2
        torch.testing.assert_close(seen[step], changed.detach(), rtol=0, atol=1e-5)
        z = scores(changed)
        loss = torch.zeros(())
        for i in range(3):
            rest = torch.cat([z[i, : target[i]], z[i, target[i] + 1 :]])
            lead = torch.stack([rest.max() - z[i, target[i]], torch.tensor(-kappa)]).max()
            loss = loss + ((changed[i] - x[i]) ** 2).sum() + c * lead
        adam.zero_grad()
        loss.backward()
        adam.step()


def test_steps_of_pgd_are_signs_within_epsilon() -> None:
    scores = convolutional()
    x, attack = images(4, low=0, high=1), ProjectedGradient(steps=6, epsilon=0.04, confidence=1e6)
    target = others(scores(x))
    seen: list[Tensor] = []

    def watched(pixels: Tensor) -> Tensor:
        seen.append(pixels.detach().clone())
        return scores(pixels)

    assert not attack(watched, x, target, range(4)).reached.any()
    assert len(seen) == 7, "the last point is looked at as well"
    assert attack.pace == pytest.approx(0.1 / 6)
    for here, then in itertools.pairwise(seen):
        assert ((here - x).abs() <= 0.04 + 1e-6).all() and (here >= 0).all() and (here <= 1).all()
        at = here.clone().requires_grad_()
        nn.functional.cross_entropy(scores(at), target, reduction="sum").backward()  # type: ignore[no-untyped-call]
        assert at.grad is not None
        expected = (here - attack.pace * at.grad.sign()).clamp(x - 0.04, x + 0.04).clamp(0, 1)
        torch.testing.assert_close(then, expected)


def test_an_image_is_changed_alike_alone_and_among_others() -> None:
    scores = convolutional()
    x = images(6)
    target = others(scores(x))
    cw, pgd = CarliniWagner(steps=40, searches=3), ProjectedGradient(epsilon=0.2)
    whole, quick = cw(scores, x, target), pgd(scores, x, target, range(6))
    for i in (0, 4):
        one = slice(i, i + 1)
        alone = cw(scores, x[one], target[one])
        torch.testing.assert_close(alone.pixels, whole.pixels[one], rtol=0, atol=1e-3)
        alone = pgd(scores, x[one], target[one], [i])
        torch.testing.assert_close(alone.pixels, quick.pixels[one], rtol=0, atol=1e-3)


def test_carlini_wagner_goes_no_farther_than_pgd() -> None:
    scores = convolutional()
    x = images(10)
    target = others(scores(x))
    slow = CarliniWagner(steps=100, searches=6)(scores, x, target)
    quick = ProjectedGradient(epsilon=0.3)(scores, x, target, range(10))
    both = slow.reached & quick.reached
    assert both.sum() >= 8
    assert (distances(slow.pixels, x) <= distances(quick.pixels, x) + 1e-6)[both].all()


def test_eight_bits_keep_what_is_confident_and_lose_what_lies_at_the_border() -> None:
    weight, scores = linear(2)
    x = in_8_bits(images(10))
    target = others(scores(x))
    most = float((weight[0] - weight[1]).abs().sum() / 510)  # so much a rounding can change the lead
    for confidence, kept in ((0.0, False), (most, True)):
        changed = CarliniWagner(steps=150, searches=6, confidence=confidence)(scores, x, target)
        assert changed.reached.all()
        assert bool((scores(in_8_bits(changed.pixels)).argmax(1) == target).all()) is kept
    assert torch.equal(in_8_bits(x), x)


def test_a_network_without_gradients_is_told_of() -> None:
    scores = convolutional()
    x = images(2)
    target = others(scores(x))

    def closed(pixels: Tensor) -> Tensor:
        with torch.no_grad():
            return scores(pixels)

    for attack in (
        lambda: CarliniWagner()(closed, x, target),
        lambda: ProjectedGradient()(closed, x, target, [0, 1]),
    ):
        with pytest.raises(NDError, match="no gradient"):
            attack()


def test_not_a_number_in_one_image_leaves_the_others_as_they_are() -> None:
    scores = convolutional()
    x = images(4)
    target = others(scores(x))

    def broken(pixels: Tensor) -> Tensor:
        z = scores(pixels)
        return torch.where(torch.tensor([False, True, False, False])[: len(z), None], z * torch.nan, z)

    one = CarliniWagner(steps=20, searches=2)(broken, x, target)
    assert one.reached.tolist()[1] is False and torch.equal(one.pixels[1], x[1])
    assert torch.isfinite(one.pixels).all()
