"""What a batch of a dissection asks of torch: few operations, hardly a wait, and nothing for each image.

On a GPU every operation takes the host some microseconds and every wait stops it until the device is done. Both are
the same on a CPU, where they are counted (ndissect.engine.machine.operations): they depend on no machine and no load.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path

import pytest
import torch

from ndissect.engine.data.formats import open_dataset
from ndissect.engine.data.subset import spread
from ndissect.engine.data.synthetic import write_synthetic
from ndissect.engine.experiments.steady import BatchOperations, count_batch
from ndissect.engine.machine.operations import count_operations
from ndissect.engine.machine.progress import Progress
from ndissect.engine.networks.layers import list_layers
from ndissect.engine.networks.resolve import load_network
from ndissect.engine.run.dissect import dissect
from ndissect.engine.run.settings import Settings
from ndissect.store.protocol import make_protocol

#: The most that a batch usually asks for, of all layers together, in gathering, and that counting with the null takes
#: for it, where several batches are counted at once.
GATHERING = {"layer4": 80, "layer?": 320}
COUNTING = {"layer4": 80, "layer?": 320}
#: How often it usually waits: the host reads once for all layers, and now and then a layer's values are put in order,
#: which of four is one or another in most batches of so short a run.
WAITS = {"layer4": 1, "layer?": 3}
#: What a run does once, and now and then, may make the average of a run of 16 batches so much larger; and each layer
#: may then wait a few times.
ONCE, WAITS_ONCE = 1.5, 3

BATCH, BATCHES, NULL = 64, 16, 4
SIDE, GRID = 48, 28

#: The phases of the two loops (Clock.during); the rest is the network, decoding, and what is done once a run.
GATHERED = ("thresholds", "labels", "")
COUNTED = ("tally", "null")

NETWORK = """
import torch


def network():
    from torchvision.models import resnet18

    torch.manual_seed(0)
    return resnet18(), lambda x: x.float() / 255
"""

Counted = Callable[..., BatchOperations]


@pytest.fixture(scope="module")
def counted(tmp_path_factory: pytest.TempPathFactory) -> Counted:
    """Counts a batch of ResNet-18; what was counted once is kept."""
    folder = tmp_path_factory.mktemp("operations")
    (folder / "net.py").write_text(NETWORK, encoding="utf-8")
    data = open_dataset(
        write_synthetic(folder / "data", BATCH * BATCHES, image_size=SIDE, grid=GRID, concepts=300, workers=1)
    )
    network = load_network(f"{folder / 'net.py'}:network")
    infos = list_layers(network, (SIDE, SIDE))
    kept: dict[tuple[str, int, int], BatchOperations] = {}

    def run(pattern: str, batch: int, images: int, progress: Progress) -> None:
        layers = [i for i in infos if Path(i.name).match(pattern)]
        settings = Settings(workers=1, batch=batch, null=NULL)
        dissect(network, spread(data, images), layers, make_protocol(), settings, progress)

    def count(pattern: str, batch: int = BATCH, batches: int = BATCHES) -> BatchOperations:
        key = pattern, batch, batches
        if key not in kept:
            kept[key] = count_batch(partial(run, pattern, batch, batch * batches), batch, batches)
        return kept[key]

    return count


def total(by_phase: Mapping[str, float], phases: Iterable[str]) -> float:
    return sum(by_phase.get(phase, 0) for phase in phases)


@pytest.mark.parametrize("layers", GATHERING)
def test_gathering_a_batch_takes_few_operations(counted: Counted, layers: str) -> None:
    found = counted(layers)
    assert 1 <= total(found.operations, GATHERED) <= GATHERING[layers], found.operations
    assert total(found.operations_in_all, GATHERED) <= ONCE * GATHERING[layers], found.operations_in_all


@pytest.mark.parametrize("layers", COUNTING)
def test_counting_a_batch_with_its_null_takes_few_operations(counted: Counted, layers: str) -> None:
    found = counted(layers)
    assert 1 <= total(found.operations_in_all, COUNTED) <= COUNTING[layers], found.operations_in_all


@pytest.mark.parametrize("layers", GATHERING)
def test_a_batch_waits_once(counted: Counted, layers: str) -> None:
    found = counted(layers)
    assert 1 <= total(found.waits, GATHERED) <= WAITS[layers], found.waits
    assert total(found.waits, COUNTED) <= 1, found.waits
    assert total(found.waits_in_all, GATHERED) <= WAITS_ONCE * (1 + WAITS[layers]), found.waits_in_all
    assert total(found.waits_in_all, COUNTED) <= 2, found.waits_in_all


@pytest.mark.parametrize("layers", GATHERING)
def test_nothing_is_asked_for_each_image(counted: Counted, layers: str) -> None:
    few, many = counted(layers, BATCH // 2), counted(layers)
    for phases in GATHERED, COUNTED:
        assert total(many.waits, phases) <= total(few.waits, phases), (few.waits, many.waits)
    assert total(many.operations, GATHERED) <= total(few.operations, GATHERED), (few, many)


# The count itself


def test_operations_and_waits_are_counted_by_what_they_are() -> None:
    x = torch.arange(6.0)

    def work() -> None:
        (x + 1).tolist()  # which a GPU would have to copy
        (x + 1).sum().item()  # three, of which the last waits
        x[x > 2]  # a comparison, and a choice whose size depends on values
        x[torch.tensor([0, 2])]  # of which the size is known

    found = count_operations(work)
    assert found.operations[""] >= 6
    assert found.waits[""] == 3
    assert found.names["", "add"] == 2


def test_a_batch_is_told_from_what_a_run_does_once() -> None:
    def run(progress: Progress) -> None:
        for loop in ("first", "second"):
            progress.start(loop, 32)
            for batch in range(4):
                for _ in range(1 if batch else 100):
                    torch.ones(1)
                torch.ones(1).item()
                progress.advance(8)
        for _ in range(50):
            torch.ones(1)

    found = count_batch(run, 8, 4)
    an_operation = count_operations(lambda: torch.ones(1)).operations[""]
    assert found.waits == {"": 2.0}, "one in each loop"
    assert found.operations[""] == 4 * an_operation + 2, "of the usual batches: a ones, a ones and its item"
    assert found.operations_in_all[""] == ((2 * (103 + 4) + 50) * an_operation + 8) / 4
