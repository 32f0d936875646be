"""Networks of planted units among noise, from pictures to q: what is planted is found, and little else."""

from __future__ import annotations

import numpy as np
import pytest
from dissecting import layer, run
from planted import FOLLOWS, write_planted_data, write_planted_network

from ndissect.store.evidence import SIGNIFICANT
from ndissect.store.model import Layer
from ndissect.store.scores import DETECTOR_IOU, label_units

SEEDS, PLANTED = 16, 6


@pytest.fixture(scope="module")
def layers(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[Layer, np.ndarray]]:
    """Of each seed the layer, and its labels as numbers."""
    folder, found = tmp_path_factory.mktemp("planted"), []
    for seed in range(SEEDS):
        data = write_planted_data(folder / f"data_{seed}", seed)
        net = write_planted_network(folder, seed, planted=PLANTED)
        outcome = run(net, data, ["units"], q="1/50", null=4, batch=40)
        known = layer(outcome, "units")
        number = outcome.dissection.concepts.number
        found.append((known, np.append(number, -1)[label_units(known.best)[0]]))
    return found


def test_planted_units_are_found_under_their_concepts_and_hold_on_other_images(
    layers: list[tuple[Layer, np.ndarray]],
) -> None:
    for known, label in layers:
        assert known.evidence is not None
        assert label[:PLANTED].tolist() == list(FOLLOWS[:PLANTED])
        assert (known.evidence.q[:PLANTED] < SIGNIFICANT).all()
        assert np.nanmedian(known.evidence.heldout_iou[:PLANTED]) > 0.3
        assert np.median(known.evidence.stability[:PLANTED]) > 0.95


def test_noise_passes_004_but_seldom_q_and_never_the_held_out_images(layers: list[tuple[Layer, np.ndarray]]) -> None:
    false, detectors = [], []
    for known, _ in layers:
        assert known.evidence is not None
        found = known.evidence.q < SIGNIFICANT
        false.append(found[PLANTED:].sum() / max(found.sum(), 1))
        detectors.append((label_units(known.best)[1][PLANTED:] > DETECTOR_IOU).mean())
        assert np.nanmedian(known.evidence.heldout_iou[PLANTED:]) < DETECTOR_IOU + 0.01
    assert np.mean(false) <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / SEEDS)
    assert np.mean(detectors) > 0.1
