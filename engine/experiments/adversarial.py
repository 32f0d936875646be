"""Targeted adversarial changes of images: the smallest that are found (Carlini and Wagner), and quick ones (PGD).

Both change pixels in [0, 1] until a network's largest score is that of a target class, and ask for nothing but a
function of the pixels whose gradient is known. Each image is changed by itself: what becomes of it does not depend on
the images beside it.

No library does this here. torchattacks has no binary search over the constant and is held to old versions of other
packages; foolbox and the Adversarial Robustness Toolbox bring more packages than this takes lines.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from ndissect.store.errors import NDError

#: Pixels (n, C, h, w) float32 in [0, 1] -> the scores (n, K) of K classes.
Scores = Callable[[Tensor], Tensor]
#: Called after every step.
Report = Callable[[], None]

# Just inside of (-1, 1), where the inverse of tanh is finite (as in the authors' code).
_INSIDE = 0.999999
# Adam's own constants (Kingma and Ba, 2015).
_BETA1, _BETA2, _EPSILON = 0.9, 0.999, 1e-8
# A search over one constant ends where the loss has not fallen by this share in a tenth of the steps.
_FALLEN, _LOOKS = 1e-4, 10


@dataclass(frozen=True)
class Adversarial:
    """Changed images: ``pixels`` (n, C, h, w) float32 in [0, 1]; ``reached`` (n,) bool: those that reach the target.

    What does not reach the target comes back as it was.
    """

    pixels: Tensor
    reached: Tensor


@dataclass(frozen=True)
class CarliniWagner:
    """The targeted L2 attack of Carlini and Wagner, 2017 (arXiv 1608.04644, section VI.A).

    x' = (tanh(w) + 1) / 2 minimises ||x' - x||^2 + c f(x'), where f(x') = max(max_(k not t) Z_k - Z_t, -confidence) of
    the scores Z and the target t, by Adam from w = atanh(2 x - 1). ``searches`` constants c are tried for each image,
    beginning with ``first``: ten times as large after a failure without a success so far, else half-way between the
    largest that failed and the smallest that did not. Each takes up to ``steps`` of Adam at ``rate``, and fewer where
    the loss stops falling. Of all x' with Z_t - max Z_k > confidence the nearest to x is kept.
    """

    steps: int = 100
    searches: int = 5
    confidence: float = 0.0
    first: float = 1.0
    rate: float = 0.01

    def __call__(self, scores: Scores, pixels: Tensor, target: Tensor, report: Report = lambda: None) -> Adversarial:
        """``pixels`` (n, C, h, w) float32 in [0, 1] on the way to their ``target`` classes (n,) int64.

        NDError where the scores have no gradient.
        """
        best, nearest = pixels.clone(), torch.full((len(pixels),), torch.inf, device=pixels.device)
        failed = torch.zeros(len(pixels), device=pixels.device)
        worked, c = torch.full_like(failed, torch.inf), torch.full_like(failed, self.first)
        for _ in range(self.searches):
            reached = self._descend(scores, pixels, target, c, best, nearest, report)
            worked = torch.where(reached, torch.minimum(worked, c), worked)
            failed = torch.where(reached, failed, torch.maximum(failed, c))
            c = torch.where(torch.isfinite(worked), (failed + worked) / 2, 10 * c)
        return Adversarial(best, torch.isfinite(nearest))

    def _descend(
        self, scores: Scores, pixels: Tensor, target: Tensor, c: Tensor, best: Tensor, nearest: Tensor, report: Report
    ) -> Tensor:
        """(n,) bool: the images that reach their target with the constants ``c`` (n,).

        Nearer ones than so far are written into ``best``, their squared distances into ``nearest``.
        """
        start = torch.atanh((2 * pixels - 1) * _INSIDE)
        w, mean, square = start, torch.zeros_like(start), torch.zeros_like(start)
        reached = torch.zeros_like(target, dtype=torch.bool)
        before = torch.full_like(c, torch.inf)
        rows = torch.arange(len(pixels), device=pixels.device)  # the images that are still on their way
        every = max(self.steps // _LOOKS, 1)
        for step in range(1, self.steps + 1):
            distance, lead, loss, x, gradient = self._look(scores, w, pixels[rows], target[rows], c[rows])
            hit = lead > self.confidence
            reached[rows[hit]] = True
            nearer = hit & (distance < nearest[rows])
            best[rows[nearer]], nearest[rows[nearer]] = x[nearer], distance[nearer]
            mean = _BETA1 * mean + (1 - _BETA1) * gradient
            square = _BETA2 * square + (1 - _BETA2) * gradient**2
            size = self.rate * (1 - _BETA2**step) ** 0.5 / (1 - _BETA1**step)
            w = w - size * mean / (square.sqrt() + _EPSILON * (1 - _BETA2**step) ** 0.5)
            report()
            if step % every == 0:
                falls = loss <= (1 - _FALLEN) * before[rows]
                before[rows] = loss
                if not falls.all():
                    rows, w, mean, square = rows[falls], w[falls], mean[falls], square[falls]
                if not len(rows):
                    break
        return reached

    def _look(
        self, scores: Scores, w: Tensor, pixels: Tensor, target: Tensor, c: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """At ``w``: squared distance (n,), the target's lead (n,), the loss (n,), the pixels, the loss's gradient."""
        with torch.enable_grad():
            w = w.detach().requires_grad_()
            x = (torch.tanh(w) + 1) / 2
            lead = leads(with_gradient(scores(x)), target)
            distance = (x - pixels).square().flatten(1).sum(1)
            loss = distance + c * (-lead).clamp(min=-self.confidence)
            (gradient,) = torch.autograd.grad(loss.sum(), w)
        # Where the network gives NaN an image stays where it is, and the others are none the worse for it.
        return distance.detach(), lead.detach(), loss.detach(), x.detach(), gradient.nan_to_num(0, 0, 0)


@dataclass(frozen=True)
class ProjectedGradient:
    """The targeted projected gradient descent of Madry et al., 2018 (arXiv 1706.06083), within L-infinity.

    From a random point within ``epsilon`` of x, ``steps`` steps of ``pace`` against the sign of the gradient of the
    target's cross-entropy, each cut to within ``epsilon`` of x and to [0, 1]; ``pace`` is 2.5 ``epsilon`` / ``steps``.
    An image is done at its first step where Z_t - max Z_k > ``confidence``.
    """

    steps: int = 40
    epsilon: float = 8 / 255
    confidence: float = 0.0

    @property
    def pace(self) -> float:
        """How far a step goes."""
        return 2.5 * self.epsilon / self.steps

    def __call__(
        self, scores: Scores, pixels: Tensor, target: Tensor, seeds: Sequence[int], report: Report = lambda: None
    ) -> Adversarial:
        """As of :class:`CarliniWagner`; ``seeds``: a number for each image, of which its random point is drawn."""
        best, reached = pixels.clone(), torch.zeros_like(target, dtype=torch.bool)
        low, high = (pixels - self.epsilon).clamp(min=0), (pixels + self.epsilon).clamp(max=1)
        drawn = [torch.rand(pixels.shape[1:], generator=torch.Generator().manual_seed(seed)) for seed in seeds]
        noise = (2 * torch.stack(drawn).to(pixels.device) - 1) * self.epsilon
        x = torch.minimum(torch.maximum(pixels + noise, low), high)
        rows = torch.arange(len(pixels), device=pixels.device)
        for step in range(self.steps + 1):
            with torch.enable_grad():
                x = x.detach().requires_grad_()
                given = with_gradient(scores(x))
                (gradient,) = torch.autograd.grad(F.cross_entropy(given, target[rows], reduction="sum"), x)
            hit = leads(given.detach(), target[rows]) > self.confidence
            x = x.detach()
            best[rows[hit]], reached[rows[hit]] = x[hit], True
            rows, x, gradient = rows[~hit], x[~hit], gradient[~hit].nan_to_num(0, 0, 0)
            report()
            if not len(rows) or step == self.steps:
                break
            x = torch.minimum(torch.maximum(x - self.pace * gradient.sign(), low[rows]), high[rows])
        return Adversarial(best, reached)


def leads(scores: Tensor, target: Tensor) -> Tensor:
    """(n,): how far the score of the ``target`` (n,) lies above the largest of the others, below 0 where under it."""
    own = F.one_hot(target, scores.shape[1]).bool()
    return scores.gather(1, target[:, None])[:, 0] - scores.masked_fill(own, -torch.inf).amax(1)


def with_gradient(scores: Tensor) -> Tensor:
    """``scores``; NDError where nothing leads back from them to the pixels."""
    if not scores.requires_grad:
        raise NDError(
            "the network's scores have no gradient: nothing in them leads back to the pixels",
            "an attack follows the gradient: take no_grad, inference_mode, detach() and NumPy out of its forward",
        )
    return scores


def in_8_bits(pixels: Tensor) -> Tensor:
    """``pixels`` as a file of 8 bits a channel holds them."""
    return (pixels * 255).round() / 255


def distances(changed: Tensor, pixels: Tensor) -> Tensor:
    """(n,): the L2 distance between images (n, C, h, w), with pixels in [0, 1]."""
    difference: Tensor = (changed - pixels).flatten(1)
    return difference.square().sum(1).sqrt()
