"""Several quantiles from one pass: equal to dissections of their own, summed up, drawn, and refused where it must be."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from dissecting import IMAGES, SIZE, run, write_data
from networks_factory import EXACT, write_network

from ndissect.engine.data.broden import open_dataset
from ndissect.engine.layers import list_layers, match_layers
from ndissect.engine.memory import Budget
from ndissect.engine.networks.resolve import load_network
from ndissect.engine.progress import Progress
from ndissect.engine.settings import Settings
from ndissect.engine.sweep import Sweep, sweep
from ndissect.store.errors import NDError
from ndissect.store.model import Layer
from ndissect.store.protocol import make_protocol

QS = ["1/50", "1/3", "1/7", "0.1"]  # not in order
LAYERS = ["first", "second"]
ROOM = Budget(1 << 30, 1 << 30)
#: The thresholds fit, what may fire in all images does not.
LITTLE = Budget(57_500, 57_500)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("data") / "small")


@pytest.fixture(scope="module")
def net(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"{write_network(tmp_path_factory.mktemp('net'), EXACT)}:network"


class Noted(Progress):
    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


def swept(net: str, data: Path, protocol: str, memory: Budget, progress: Progress | None = None) -> Sweep:
    network = load_network(net)
    infos = list_layers(network, (SIZE, SIZE))
    chosen = [i for i in infos if i.name in match_layers(LAYERS, infos)]
    settings = Settings(batch=5, workers=2, memory=memory)
    protocols = [make_protocol(protocol, q=q) for q in QS]
    return sweep(network, open_dataset(data), chosen, protocols, settings, progress or Progress())


def same(a: Layer, b: Layer) -> None:
    """Thresholds, counts over all images and labels are equal."""
    for name, value in vars(a.statistics).items():
        np.testing.assert_array_equal(value, vars(b.statistics)[name], err_msg=name)
    for name, value in vars(a.counts).items():
        np.testing.assert_array_equal(value.sum(0), vars(b.counts)[name].sum(0), err_msg=name)
    for name, value in vars(a.best).items():
        np.testing.assert_array_equal(value, vars(b.best)[name], err_msg=name)


@pytest.mark.parametrize("protocol", ["netdissect", "lite", "pnas2020"])
def test_each_quantile_counts_as_a_dissection_of_its_own(net: str, data: Path, protocol: str) -> None:
    found = swept(net, data, protocol, ROOM)
    assert [d.protocol.q for d in found.dissections] == sorted(map(Fraction, QS), reverse=True)
    assert found.passes == 1
    for dissection in found.dissections:
        alone = run(net, data, LAYERS, protocol, q=str(dissection.protocol.q)).dissection
        assert dissection.protocol == alone.protocol
        assert [x.name for x in dissection.layers] == LAYERS
        for mine, its in zip(dissection.layers, alone.layers, strict=True):
            same(its, mine)


def test_images_that_were_not_kept_are_counted_at_all_quantiles_in_a_second_pass(net: str, data: Path) -> None:
    progress = Noted()
    found, whole = swept(net, data, "netdissect", LITTLE, progress), swept(net, data, "netdissect", ROOM)
    assert 1 < found.passes < 2
    assert any("did not suffice" in note for note in progress.notes)
    for a, b in zip(found.dissections, whole.dissections, strict=True):
        for mine, its in zip(a.layers, b.layers, strict=True):
            same(its, mine)


def test_thresholds_that_do_not_fit_are_told_with_what_they_need(net: str, data: Path) -> None:
    with pytest.raises(NDError, match=r"need 57.2 kB of memory in one pass, --memory is 56.0 kB"):
        swept(net, data, "netdissect", Budget(56_000, 56_000))
