"""Predictions without sets of units: equal to hooks that set channels to zero, whatever the batch; counts by class."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ablating import CLASSES, UNITS, Head, by_hooks, classified, images, network
from torch import Tensor, nn

from ndissect.engine.experiments.classified import EffectRequest, open_classified
from ndissect.engine.experiments.effect_counts import count_effects
from ndissect.engine.experiments.predictions import Predictions, predict_without
from ndissect.engine.machine.console import Console
from ndissect.engine.networks.capture import Capture
from ndissect.engine.networks.taps import Tap
from ndissect.engine.run.options import Options
from ndissect.store.bootstrap import block_of
from ndissect.store.effects import balanced_accuracy, rows_of
from ndissect.store.errors import NDError, WrongUse
from ndissect.store.intervals import margin

SETS = [*((u,) for u in range(UNITS)), (0, 3), (1, 2, 3, 4, 5)]
HEADS: tuple[Head, ...] = ("linear", "places", "nonlinear")


@pytest.fixture(params=HEADS)
def head(request: pytest.FixtureRequest) -> Head:
    known: Head = request.param
    return known


def same(found: Predictions, classes: Tensor, scores: Tensor, truth: Tensor) -> None:
    """What was predicted is what the scores say, to 1e-5 of the largest; classes where two are not as good as equal."""
    own = scores.gather(2, truth[:, None, None].expand(-1, len(found.sets), 1))[..., 0]
    scale = float(scores.abs().max())
    assert np.abs(found.score - own.numpy()).max() <= 1e-5 * scale
    best = scores.topk(2, 2).values
    clear = (best[..., 0] - best[..., 1] > 1e-4 * scale).numpy()
    assert clear.mean() > 0.9
    assert (found.predicted == classes.numpy())[clear].all()


@pytest.mark.parametrize("batch", [1, 7, 64])
def test_zero_is_what_hooks_give(head: Head, batch: int) -> None:
    c = classified(network(head), images(23), batch=batch)
    found = predict_without(c, SETS, c.images)
    same(found, *by_hooks(c, SETS, torch.zeros(1, UNITS, 1, 1)), torch.from_numpy(c.truth))
    assert found.how == ("tail" if head == "nonlinear" else "linear head")
    assert (found.plain == c.network.module(c.pixels).argmax(1).numpy()).all()
    assert (found.truth == c.truth).all()
    assert (found.images == np.arange(23)).all()
    assert (found.predicted[:, 4] == found.plain).all()  # the dead unit


@pytest.mark.parametrize("batch", [1, 7, 64])
def test_the_mean_is_that_of_all_places_of_the_train_images(head: Head, batch: int) -> None:
    c = classified(network(head), images(23), batch=batch)
    maps = c.network.module[:3](c.pixels)  # type: ignore[index]
    mean = maps[c.split == 0].mean((0, 2, 3))[None, :, None, None]
    found = predict_without(c, SETS, c.images[:20], "mean")
    classes, scores = by_hooks(c, SETS, mean)
    same(found, classes[:20], scores[:20], torch.from_numpy(c.truth[:20]))


def test_resampling_takes_another_image_whatever_the_batch(head: Head) -> None:
    pixels = images(23)
    found = [
        predict_without(classified(network(head), pixels, batch=b), SETS, range(23), "resample") for b in (1, 7, 64)
    ]
    for other in found[1:]:
        assert (other.predicted == found[0].predicted).mean() > 0.99
        np.testing.assert_allclose(other.score, found[0].score, rtol=0, atol=1e-4)
    order = np.random.default_rng(0).permutation(23)
    partner = np.empty(23, np.int64)
    partner[order] = np.roll(order, 1)
    assert (partner != np.arange(23)).all()
    c = classified(network(head), pixels)
    maps = c.network.module[:3](pixels)  # type: ignore[index]
    same(found[0], *by_hooks(c, SETS, maps[partner]), torch.from_numpy(c.truth))


@pytest.mark.parametrize("by", ["zero", "resample"])
def test_images_that_cannot_be_read_are_left_out(head: Head, by: Any) -> None:
    c = classified(network(head), images(23), bad=(0, 5, 20))
    found = predict_without(c, SETS, c.images, by)
    assert found.images.tolist() == [i for i in range(23) if i not in (0, 5, 20)]
    if by == "zero":
        whole = predict_without(classified(network(head), images(23)), SETS, c.images)
        assert (found.predicted == whole.predicted[found.images]).all()


def test_an_image_never_stands_in_for_itself(head: Head) -> None:
    c = classified(network(head), images(3), bad=(0, 2))
    with pytest.raises(NDError, match="there is no other"):
        predict_without(c, SETS, c.images, "resample")


@pytest.mark.parametrize("by", ["zero", "resample"])
def test_where_memory_runs_out_fewer_images_are_taken_at_a_time(head: Head, by: Any) -> None:
    expected = predict_without(classified(network(head), images(23)), SETS, range(23), by)
    notes: list[str] = []
    sizes: list[int] = []
    c = classified(network(head), images(23), batch=16)
    c.progress.note = notes.append  # type: ignore[method-assign]

    def full(module: nn.Module, given: tuple[Tensor]) -> None:
        sizes.append(len(given[0]))
        if len(given[0]) > 5:
            raise torch.OutOfMemoryError("full")

    c.network.module.get_submodule("rest0").register_forward_pre_hook(full)
    found = predict_without(c, SETS, range(23), by)
    assert (found.predicted == expected.predicted).mean() > 0.99
    np.testing.assert_allclose(found.score, expected.score, rtol=0, atol=1e-4)
    assert [note.rpartition(" ")[2] for note in notes] == ["8", "4"]
    assert sizes.count(16) == sizes.count(8) == 1


def test_the_prediction_stands_for_the_class_where_nothing_says_it(head: Head) -> None:
    c = classified(network(head), images(9), truth_from="prediction")
    found = predict_without(c, [(0,)], c.images)
    assert (found.truth == found.plain).all()


def test_what_cannot_be_taken_away_is_refused(head: Head) -> None:
    c = classified(network(head), images(9))
    with pytest.raises(WrongUse, match="units has no unit 6"):
        predict_without(c, [(6,)], c.images)
    with pytest.raises(WrongUse, match="a set without units"):
        predict_without(c, [()], c.images)
    with pytest.raises(WrongUse, match="no images"):
        predict_without(c, [(0,)], [])
    with pytest.raises(WrongUse, match="a single image has no other one"):
        predict_without(c, [(0,)], [3], "resample")
    with pytest.raises(NDError, match="no image could be read"):
        predict_without(classified(network(head), images(2), bad=(0, 1)), [(0,)], [0, 1])
    assert predict_without(c, [(0,)], [3]).predicted.shape == (1, 1)
    net = network(head)
    with torch.no_grad():
        list(net.children())[-1].bias.fill_(float("nan"))  # type: ignore[union-attr]
    with pytest.raises(NDError, match="NaN"):
        predict_without(classified(net, images(9)), [(0,)], [3])


def test_dead_units_change_nothing(head: Head) -> None:
    net = network(head)
    with torch.no_grad():
        for values in net.conv.parameters():  # type: ignore[union-attr]
            values.fill_(-1 if values.ndim == 1 else 0)
    found = predict_without(classified(net, images(9)), SETS, range(9))
    assert (found.predicted == found.plain[:, None]).all()
    assert (found.score == found.plain_score[:, None]).all()


def random_predictions(n: int, sets: int, classes: int) -> Predictions:
    rng = np.random.default_rng(4)
    truth = rng.integers(0, classes - 1, n).astype(np.int32)  # the last class has no image
    plain = np.where(rng.random(n) < 0.7, truth, rng.integers(0, classes, n)).astype(np.int32)
    changed = rng.random((n, sets)) < 0.2
    predicted = np.where(changed, rng.integers(0, classes, (n, sets)), plain[:, None]).astype(np.int32)
    score = rng.standard_normal((n, sets)).astype(np.float32)
    return Predictions(
        sets=tuple((u,) for u in range(sets)),
        by="zero",
        images=np.arange(n),
        truth=truth,
        plain=plain,
        plain_score=score[:, 0],
        predicted=predicted,
        score=score,
        how="tail",
    )


def test_counts_scores_and_intervals_are_those_of_their_definitions() -> None:
    n, sets, K = 300, 9, 6
    p = random_predictions(n, sets, K)
    p.truth[p.truth == 3] = 2
    p.truth[17] = 3  # a class of a single image
    split, block = np.arange(n) % 2, np.array([block_of(str(i)) for i in range(n)])
    effects = count_effects(p, classes=K, splits=("train", "val"), split=split, block=block, origin={"by": "zero"})

    def accuracy(rows: Any, predicted: Any, k: int) -> float:
        of, truth = predicted[rows] == k, p.truth[rows] == k
        counts = [np.array([x, 0]) for x in ((of & truth).sum(), (of & ~truth).sum(), truth.sum())]
        counts[2][1] = (~truth).sum()
        return float(balanced_accuracy(*counts)[0])

    for s in range(2):
        rows = np.flatnonzero(split == s)
        for k in range(K):
            of = rows[p.truth[rows] == k]
            assert effects.images[s, k] == len(of)
            np.testing.assert_allclose(effects.balanced_accuracy[s, k], accuracy(rows, p.plain, k))
            for e in range(sets):
                before, after = (accuracy(rows, x, k) for x in (p.plain, p.predicted[:, e]))
                np.testing.assert_allclose(effects.balanced_accuracy_without[s, e, k], after)
                if not len(of):
                    assert np.isnan([effects.score_without[s, e, k], effects.low[s, e, k], after]).all()
                    continue
                np.testing.assert_allclose(effects.score_without[s, e, k], p.score[of, e].mean(), rtol=1e-5)
                if len(of) == 1:
                    assert (effects.low[s, e, k], effects.high[s, e, k]) == (-1, 1)
                    continue
                left = [rows[block[rows] != b] for b in range(32)]
                change = [accuracy(r, p.predicted[:, e], k) - accuracy(r, p.plain, k) for r in left]
                half = margin(np.array(change) - (after - before))
                expected = np.clip([after - before - half, after - before + half], -1, 1)
                np.testing.assert_allclose([effects.low[s, e, k], effects.high[s, e, k]], expected, atol=1e-6)
    some = rows_of(effects, [3, 1])
    assert some.units == ((3,), (1,))
    assert (some.hits_without == effects.hits_without[:, [3, 1]]).all()
    assert CLASSES < K


SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.mark.skipif(not SHARED.is_dir(), reason="the real networks of shared/data are not here")
@pytest.mark.parametrize(
    ("name", "layer", "how"),
    [
        ("mobilenet_v2_imagenet", None, "linear head"),
        ("squeezenet_places365", None, "tail"),  # a nonlinearity before the pooling
        ("cifar10_resnet20", "layer2", "tail"),
    ],
)
def test_real_networks_on_real_images(name: str, layer: str | None, how: str) -> None:
    found = []
    for batch in (1, 5):
        options = Options(data=str(SHARED / "broden_mini"), device="cpu", batch_size=batch)
        asked = EffectRequest(network=f"{SHARED / 'networks.py'}:{name}", layer=layer, options=options)
        with open_classified(asked, Console()) as c:
            some = c.images[:: len(c.images) // 6][:6]
            sets = [(0,), (5,), (1, 2, 3), tuple(range(c.layer.units))]
            found.append(predict_without(c, sets, some))
            assert found[-1].how == how
            if batch > 1:
                continue
            tap = {c.layer.name: c.layer.tap or Tap(c.layer.name)}
            for one, image in enumerate(c.batches(some)):
                for e, units in enumerate(sets):

                    def without(name: str, maps: Tensor, units: tuple[int, ...] = units) -> Tensor:
                        changed = maps.clone()
                        changed[:, list(units)] = 0
                        return changed

                    with torch.no_grad(), Capture(c.network.module, [c.layer.name], tap, edit=without):
                        scores = c.scores(c.network.module(c.inputs(image)))[0]
                    own = float(scores[found[0].truth[one]])
                    assert abs(found[0].score[one, e] - own) <= 1e-5 * float(scores.abs().max())
                    assert found[0].predicted[one, e] == int(scores.argmax())
    assert (found[0].predicted == found[1].predicted).all()
    np.testing.assert_allclose(found[0].score, found[1].score, rtol=1e-5, atol=1e-4)
