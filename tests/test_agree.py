"""How far a labeller agrees with labels by hand, and which of its classes are to be left out."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from broden_factory import Concept, Picture, write_broden
from cli import nd
from networks_factory import write_network
from PIL import Image

from ndissect.engine.data.class_names import class_names, distinct, read_class_names
from ndissect.engine.data.formats import open_dataset
from ndissect.engine.experiments.agreement import Agreement, agreement
from ndissect.engine.machine.console import Console
from ndissect.engine.run.options import Options
from ndissect.store.errors import WrongUse

GRID, IMAGES = 16, 7

# Red is what the labeller says, whatever was said by hand.
NETWORK = """
import torch
from torch import nn
from torch.nn import functional as F


class Labeller(nn.Module):
    def forward(self, x):
        return F.one_hot(x[:, 0].long(), 5).permute(0, 3, 1, 2).float()


def labeller():
    module = Labeller()
    module.classes = ["background", "Motor_Bike", "tree", "unicorn", "wheel"]
    return module, lambda x: x.float()
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Trees (3) and motor bikes (4) by hand, some of which the labeller sees elsewhere; wheels (9) in no image."""
    folder = tmp_path_factory.mktemp("agree")
    rng = np.random.default_rng(1)
    pictures = []
    for i in range(IMAGES):
        by_hand = rng.choice([0, 3, 4], (GRID, GRID)).astype(np.uint16)
        said = np.select([by_hand == 3, by_hand == 4], [2, 1], 0)
        said = np.where(rng.random((GRID, GRID)) < 0.3, rng.choice(5, (GRID, GRID)), said)
        pixels = np.zeros((GRID, GRID, 3), np.uint8)
        pixels[..., 0] = said
        maps = {"object": by_hand} if i < IMAGES - 1 else {}  # one image without labels is not judged
        pictures.append(Picture(maps=maps, pixels=pixels))
    concepts = [Concept(3, "tree"), Concept(4, "motor bike, cycle"), Concept(9, "wheel", "part")]
    write_broden(folder / "data", pictures, concepts, image_size=(GRID, GRID), grid=(GRID, GRID))
    write_network(folder, NETWORK, "nets.py")
    return folder


def options(folder: Path, **more: object) -> Options:
    labeller = f"{folder / 'nets.py'}:labeller"
    return Options(data=str(folder / "data"), labeller=labeller, **{"device": "cpu", "workers": 1, **more})


def by_pixel(folder: Path, concept: int, said: int) -> tuple[int, int, int, int]:
    """Counted again, image by image: by hand, by the labeller, by it where hands said something, and both."""
    dataset = open_dataset(folder / "data")
    found = np.zeros(4, int)
    for i in range(len(dataset)):
        sample = dataset.read(i)
        if not len(sample.maps):
            continue
        hand, labelled = sample.maps[0], sample.image[..., 0]
        a, b = hand == concept, labelled == said
        found += [a.sum(), b.sum(), (b & (hand > 0)).sum(), (a & b).sum()]
    return tuple(int(n) for n in found)


@pytest.fixture(scope="module")
def found(folder: Path) -> Agreement:
    return agreement(options(folder, batch_size=3), Console())


def test_agreement_is_counted_pixel_by_pixel(folder: Path, found: Agreement) -> None:
    """A concept is matched by any of its names; an image that hands left alone says nothing."""
    assert {c.name for c in found.concepts} == {"tree", "motor bike, cycle"}
    for concept in found.concepts:
        expected = by_pixel(folder, *{"tree": (3, 2)}.get(concept.name, (4, 1)))
        assert (concept.by_hand, concept.by_labeller, concept.by_labeller_known, concept.both) == expected
        hand, said, known, both = expected
        assert concept.iou == both / (hand + said - both)
        assert concept.iou_known == both / (hand + known - both)
        assert (concept.precision, concept.recall) == (both / said, both / hand)
        assert concept.images == IMAGES - 1
    assert found.pixels == sum(c.by_hand for c in found.concepts)
    assert found.agreeing == sum(c.both for c in found.concepts)
    assert found.unjudged == ("unicorn", "wheel")


def test_what_is_left_out_can_be_given_back(folder: Path, found: Agreement, tmp_path: Path) -> None:
    worst = found.concepts[-1]
    least = (worst.iou + found.concepts[0].iou) / 2
    assert found.poor(least) == [worst]
    found.write_classes(tmp_path / "classes.csv", least)
    names = read_class_names(tmp_path / "classes.csv")
    left = {"tree": 2, "motor bike, cycle": 1}[worst.name]
    expected = class_names(["background", "Motor_Bike", "tree", "unicorn", "wheel"])
    assert names == tuple(None if n == left else name for n, name in enumerate(expected))
    again = agreement(options(folder, labeller_classes=tmp_path / "classes.csv"), Console())
    assert [c.name for c in again.concepts] == [found.concepts[0].name]


def test_data_without_labels_and_without_common_concepts_are_refused(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "names").write_text("background\na\nb\nc\nd\n")
    with pytest.raises(WrongUse, match=r"none of the concepts of .* is called as one of the data: a, b, c, d"):
        agreement(options(folder, labeller_classes=tmp_path / "names"), Console())
    (tmp_path / "photographs").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "photographs" / "a.png")
    with pytest.raises(WrongUse, match="has no labels to agree with"):
        agreement(Options(**{**vars(options(folder)), "data": str(tmp_path / "photographs")}), Console())


def test_the_command_tells_and_writes(folder: Path, found: Agreement, tmp_path: Path) -> None:
    labeller = f"{folder / 'nets.py'}:labeller"
    done = nd(
        "data", "agree", str(folder / "data"), "--labeller", labeller, "--json", "-o", str(tmp_path / "c.csv"),
        "--min-iou", "1", folder=folder,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert [c["iou"] for c in told["concepts"]] == [c.iou for c in found.concepts]
    assert told["leave_out"] == [c.name for c in found.concepts]
    assert [n for n, c in enumerate(read_class_names(tmp_path / "c.csv")) if c] == [3, 4]
    refused = nd("data", "agree", str(folder / "data"), folder=folder)
    assert refused.returncode == 2
    assert "add --labeller NETWORK" in refused.stderr


def test_names_of_classes() -> None:
    assert class_names({0: "wall", "2": "floor"}) == (("wall", "object"), None, ("floor", "object"))
    assert class_names(["__background__", ("arm", "part")]) == (None, ("arm", "part"))
    assert class_names("tree") is None
    assert class_names(()) is None
    assert class_names([1, 2]) is None
    assert distinct([None, ("a b", "object"), ("A_b", "part"), ("c", "part")]) == (
        (("a b", "object"), ("c", "part")),
        (0, 1, 1, 2),
    )
