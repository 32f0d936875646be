"""How the terminal UI looks: pictures of its screens, accepted by a person. --snapshot-update accepts new ones."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from browsing import surroundings
from store_factory import dissection, write_small
from textual.pilot import Pilot
from with_evidence import with_evidence

from ndissect.store.effects import Classes
from ndissect.store.model import Dissection
from ndissect.store.writer import write_store
from ndissect.tui.app.app import Browser
from ndissect.tui.app.start import bookmark_named
from ndissect.tui.app.state import Bookmark

SMALL, LARGE = (80, 24), (140, 40)
LAYERS = {"layer1": (16, (6, 5)), "layer2": (24, (4, 5)), "layer3": (32, (3, 3)), "layer4": (48, (2, 2))}

#: Names of cells that every font has, so that the pictures look alike everywhere.
NAMES = ("red-c", "blue-c", "car", "traffic_light", "crosswalk", "wheel", "street-s", "art_gallery-s", "striped")

Looks = Callable[..., bool]


@pytest.fixture(autouse=True)
def _around(tmp_path: Path) -> Iterator[None]:
    with surroundings(tmp_path):
        yield


def named(made: Dissection) -> Dissection:
    """``made`` with names that every font has."""
    assert made.images is not None
    concepts = replace(made.concepts, name=NAMES)
    images = replace(
        made.images, name=tuple(f"ade20k/ADE_{1000 + 37 * i:08}.jpg" for i in range(len(made.images.name)))
    )
    return replace(made, concepts=concepts, images=images)


@pytest.fixture
def store(tmp_path: Path) -> Path:
    path = tmp_path / "resnet18-broden.nd.h5"
    write_store(path, named(dissection(layers=LAYERS)))
    return path


@pytest.fixture
def weighed(tmp_path: Path) -> Path:
    """The same layers, with evidence for the labels."""
    path = tmp_path / "resnet18-broden.nd.h5"
    write_store(path, with_evidence(named(dissection(layers=LAYERS, groups=("train", "val")))))
    return path


@pytest.fixture
def measured(tmp_path: Path) -> Path:
    """The same layers, with what their units do to the classes."""
    path = tmp_path / "resnet18-broden.nd.h5"
    made = with_evidence(named(dissection(layers=LAYERS, groups=("train", "val"), effects=True)))
    classes = Classes(("kitchen", "street", "ski_resort", "art_gallery", "bedroom"), "the network")
    write_store(path, replace(made, classes=classes))
    return path


@pytest.fixture
def looks(snap_compare: Looks) -> Looks:
    """Whether the screen looks as it did when a person last accepted it, after keys and a rest."""

    def as_accepted(app: Browser, size: tuple[int, int], *keys: str) -> bool:
        async def visit(pilot: Pilot[None]) -> None:
            await pilot.press(*keys)
            await pilot.pause(0.2)  # tables on the right follow the cursor

        return snap_compare(app, terminal_size=size, run_before=visit)

    return as_accepted


def test_layers(looks: Looks, store: Path) -> None:
    assert looks(Browser(store), SMALL, "j")


def test_units_filtered(looks: Looks, store: Path) -> None:
    keys = ("slash", *"cat:o,p", "space", *"iou", "greater_than_sign", *"0.04", "enter", "space")
    assert looks(Browser(store, bookmark_named(store, "layer4")), SMALL, *keys)


def test_a_mistake_in_a_filter(looks: Looks, store: Path) -> None:
    assert looks(
        Browser(store, bookmark_named(store, "layer4")),
        SMALL,
        "slash",
        *"cat:part",
        "space",
        *"iuo",
        "greater_than_sign",
        "0",
    )


def test_a_unit(looks: Looks, store: Path) -> None:
    assert looks(Browser(store, bookmark_named(store, "layer4:22")), SMALL)


def test_a_unit_beside_its_layer(looks: Looks, store: Path) -> None:
    assert looks(Browser(store, bookmark_named(store, "layer4:22")), LARGE)


def test_layers_with_evidence(looks: Looks, weighed: Path) -> None:
    assert looks(Browser(weighed), SMALL, "j")


def test_units_with_evidence_filtered(looks: Looks, weighed: Path) -> None:
    keys = ("slash", *"q", "less_than_sign", *"0.05", "space", *"detector", "enter")
    assert looks(Browser(weighed, bookmark_named(weighed, "layer4")), SMALL, *keys)


def test_a_unit_with_evidence(looks: Looks, weighed: Path) -> None:
    assert looks(Browser(weighed, bookmark_named(weighed, "layer4:22")), SMALL)


def test_a_unit_with_evidence_beside_its_layer(looks: Looks, weighed: Path) -> None:
    assert looks(Browser(weighed, bookmark_named(weighed, "layer4:22")), LARGE)


def test_the_summary_with_evidence(looks: Looks, weighed: Path) -> None:
    assert looks(Browser(weighed, Bookmark("summary")), SMALL)


def test_classes(looks: Looks, measured: Path) -> None:
    assert looks(Browser(measured, Bookmark("classes")), SMALL)


def test_classes_beside_the_units_of_one(looks: Looks, measured: Path) -> None:
    assert looks(Browser(measured, Bookmark("classes")), LARGE, "j")


def test_the_classes_of_a_unit(looks: Looks, measured: Path) -> None:
    assert looks(Browser(measured, bookmark_named(measured, "layer4:1")), SMALL, "a")


def test_a_unit_with_its_classes_beside_its_layer(looks: Looks, measured: Path) -> None:
    assert looks(Browser(measured, bookmark_named(measured, "layer4:1")), LARGE)


def test_concepts(looks: Looks, store: Path) -> None:
    assert looks(Browser(store, Bookmark("concepts")), SMALL)


def test_the_summary_beside_its_units(looks: Looks, store: Path) -> None:
    assert looks(Browser(store, Bookmark("summary")), LARGE)


def test_compare(looks: Looks, store: Path) -> None:
    assert looks(Browser(store), LARGE, "space", "j", "j", "space", "c")


def test_help(looks: Looks, store: Path) -> None:
    assert looks(Browser(store), SMALL, "question_mark")


def test_a_store_with_nothing(looks: Looks, tmp_path: Path) -> None:
    assert looks(Browser(write_small(tmp_path / "empty.nd.h5", layers={})), SMALL, "c")
