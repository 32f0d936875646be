"""``nd why``: its table, its JSON and its figure, and what it says of labels, classes and bad input."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from cli import two_lines
from faults import Ended, nd_in
from PIL import Image
from store_factory import DEAD, dissection
from why_networks import CLASSES, UNITS, write_all
from with_evidence import with_evidence

from ndissect.engine.experiments.explanation import Closeup, ExplainedImage, Explanation
from ndissect.store.effects import Classes
from ndissect.store.evidence import SIGNIFICANT
from ndissect.store.layer_view import LayerView
from ndissect.store.reader import Store
from ndissect.store.scores import DETECTOR_IOU
from ndissect.store.writer import write_store
from ndissect.tui.pictures.explained import draw_explained
from ndissect.tui.tables.contributions import Explained
from ndissect.tui.tables.doubts import DEAD as SAID_DEAD
from ndissect.tui.tables.doubts import NO_LABEL, doubt_lines, doubts
from ndissect.tui.tables.where_in_image import mask_of, place_of_peak

LAYER, SIZE = "conv", (4, 5)
DISSECTED = dissection(layers={LAYER: (6, SIZE)}, groups=("train", "val"))


@pytest.fixture(scope="module")
def dissected(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the networks of why_networks, their data, and the store of a real run."""
    folder = write_all(tmp_path_factory.mktemp("why"))
    done = nd_in(
        folder, "dissect", "net.py:linear", "--data", "small", "-l", "units", "--quantile", "0.2", "-o", "net.nd.h5"
    )
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture
def work(dissected: Path, tmp_path: Path) -> Path:
    shutil.copytree(dissected, tmp_path / "work")
    return tmp_path / "work"


def why(folder: Path, *args: str) -> Ended:
    return nd_in(folder, "why", *args)


def failed(done: Ended, *said: str) -> None:
    assert done.returncode in (1, 2)
    assert done.stdout == ""
    two_lines("\n".join(done.stderr.splitlines()[-2:]), *said)
    assert "Traceback" not in done.stderr


@contextmanager
def labelled(tmp_path: Path) -> Iterator[LayerView]:
    """A layer of a store with evidence."""
    path = tmp_path / "labels.nd.h5"
    write_store(path, with_evidence(DISSECTED))
    with Store(path) as store:
        yield store.layer(LAYER)


def explanation(contributions: list[float], **changes: object) -> Explanation:
    """That of one image, truly a dog and predicted as a cat, unless changes say otherwise."""
    added = np.array(contributions)
    rng = np.random.default_rng(0)
    maps = rng.random((len(added), *SIZE)).astype(np.float32)
    pixels = rng.integers(0, 256, (24, 30, 3), dtype=np.uint8)
    nan = np.full(len(added), math.nan)
    values = {
        "network": "net.py:network",
        "layer": LAYER,
        "classes": Classes(("cat", "dog", "cow"), "the network"),
        "images": (ExplainedImage("a.png", 1, 0, 0, float(added.sum()) + 0.5, 0.5, 1e-8),),
        "versus": -1,
        "how": "linear head",
        "reason": "",
        "exact": True,
        "contributions": added,
        "low": nan,
        "high": nan,
        "closeups": (Closeup(pixels, added, maps),),
    }
    return Explanation(**(values | changes))  # type: ignore[arg-type]


ADDED = [0.5, -2.0, 0.0, 3.0, 1.0, -0.5]


def test_json_of_an_image(work: Path) -> None:
    done = why(work, "data:0004.png", "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["exact"] is True
    assert told["class"] in CLASSES
    assert told["truth"] == "green"
    assert told["image"] == "data:made/0004.png"
    assert sorted(unit["unit"] for unit in told["units"]) == list(range(UNITS))
    assert sum(unit["contribution"] for unit in told["units"]) + told["bias"] == pytest.approx(told["score"], abs=1e-5)
    total = sum(unit["contribution"] for unit in told["units"])
    for unit in told["units"]:
        share = unit["contribution"] / total if total > 0 else None
        assert unit["share"] == (share if share is None else pytest.approx(share))
    with Store(work / "net.nd.h5") as store:
        label, iou = store.layer("units").labels
        names = [store.concepts.label(int(row)) if row >= 0 else None for row in label]
    assert [(u["label"], u["iou"]) for u in told["units"]] == [
        (names[u["unit"]], pytest.approx(iou[u["unit"]])) for u in told["units"]
    ]


def test_the_table_of_a_class_by_its_images(work: Path) -> None:
    done = why(work, "--class", "green", "-n", "0")
    assert done.returncode == 0, done.stderr
    header, *rows = [line.split("\t") for line in done.stdout.splitlines()]
    assert header == ["unit", "label", "doubt", "IoU", "iou_low", "iou_high", "contribution", "low", "high", "share"]
    for row in rows:
        one = dict(zip(header, row, strict=True))
        assert float(one["low"]) <= float(one["contribution"]) <= float(one["high"])
    assert "exact, in closed form (linear head)" in done.stderr
    assert "predicted as: " in done.stderr
    told = json.loads(why(work, "--class", "green", "--json").stdout)
    assert [image["truth"] for image in told["images"]] == ["green"] * 4
    assert all(unit["low"] <= unit["contribution"] <= unit["high"] for unit in told["units"])


def test_without_a_store_units_have_no_labels(work: Path) -> None:
    (work / "net.nd.h5").unlink()
    odd = "a\n\x1b[31m'\"é.png"
    shutil.copy(work / "red.png", work / odd)
    done = why(work, odd, "--network", "net.py:bent", "-l", "units", "--json", "-o", "why.png")
    assert done.returncode == 0, done.stderr
    assert "\x1b" not in done.stdout + done.stderr
    told = json.loads(done.stdout)
    assert told["image"] == odd
    assert told["exact"] is False
    assert told["bias"] is None
    assert {(unit["label"], unit["iou"]) for unit in told["units"]} == {(None, None)}
    assert "no store" in " ".join(told["notes"])
    with Image.open(work / "why.png") as figure:
        assert "why" in figure.info["Title"]


def test_files_are_explained_where_the_data_are_gone(dissected: Path, work: Path) -> None:
    expected = json.loads(why(work, "red.png", "--json").stdout)
    network = ("--network", "net.py:linear", "--json")
    shutil.rmtree(work / "small")
    away = dissected.rename(dissected.with_name("away"))
    try:
        failed(why(work, "data:0000.png", *network), "the images of the store are gone")
        without = why(work, "red.png", *network)
        of_class = why(work, "--class", "red", "--images", str(folders(work)), *network)
    finally:
        away.rename(dissected)
    assert without.returncode == 0, without.stderr
    assert json.loads(without.stdout)["units"] == expected["units"]
    assert of_class.returncode == 0, of_class.stderr
    assert json.loads(of_class.stdout)["image"] == "data:red/0.png"


def folders(folder: Path) -> Path:
    """A folder of images for each class."""
    for name in CLASSES:
        (folder / "sorted" / name).mkdir(parents=True)
        shutil.copy(folder / f"{name}.png", folder / "sorted" / name / "0.png")
    return folder / "sorted"


def test_bad_input_is_told_in_two_lines(work: Path) -> None:
    (work / "text.png").write_text("no image", encoding="utf-8")
    failed(why(work), "no image is named", "--class NAME")
    failed(why(work, "text.png"), "not a readable image")
    failed(why(work, "data:0004.pgn"), "no image of small", "nearest")
    failed(why(work, "red.png", "--class", "gren"), "gren")
    failed(why(work, "red.png", "-o", "why.svg"), "a PNG")
    (work / "mine.png").write_bytes((work / "red.png").read_bytes())
    failed(why(work, "red.png", "-o", "mine.png"), "mine.png exists")
    assert (work / "mine.png").read_bytes() == (work / "red.png").read_bytes()
    (work / "net.nd.h5").unlink()
    failed(why(work, "red.png"), "store")


def test_rows_are_sorted_by_what_they_add(tmp_path: Path) -> None:
    with labelled(tmp_path) as view:
        explained = Explained(explanation(ADDED), view)
        assert [row.unit for row in explained.rows] == [3, 4, 0, 2, 5, 1]
        assert [row.unit for row in explained.speaking_for(2)] == [3, 4]
        assert [row.unit for row in explained.speaking_against()] == [1, 5]
        assert [row.share for row in explained.rows] == pytest.approx([1.5, 0.5, 0.25, 0, -0.25, -1])
        assert explained.rows[0].iou_low == view.known("iou_low")[3] or np.isnan(view.known("iou_low")[3])
        row = explained.speaking_for(1)[0]
        assert explained.area(row.unit) == mask_of(3, explained.explanation.closeups[0].maps[3], view).mean()


def test_a_mistake_is_told_with_what_explains_it() -> None:
    explained = Explained(explanation(ADDED), None)
    assert "its true class is dog: --versus dog tells what speaks for the mistake" in explained.notes()
    right = ExplainedImage("a.png", 0, 0, 0, 2.5, 0.5, 0.0)
    assert not any("true class" in note for note in Explained(explanation(ADDED, images=(right,)), None).notes())
    other = ExplainedImage("a.png", -1, 0, 2, 2.5, 0.5, 0.0)
    notes = Explained(explanation(ADDED, images=(other,), versus=1), None)
    assert "it is predicted as cat" in notes.notes()
    assert "why cow rather than dog" in notes.title


def test_it_is_said_how_contributions_were_computed() -> None:
    def how(**changes: object) -> str:
        return Explained(explanation(ADDED, **changes), None).how

    assert "sum to the score within 1e-5" in how()
    assert "miss the score" in how(exact=False)
    assert "do not sum to the score" in how(how="tail", exact=False)
    assert "by running the whole network (a way round it)" in how(how="network", reason="a way round it", exact=False)
    assert "approximate: activation times gradient" in how(how="gradient", exact=False)
    assert any("all contributions are 0" in note for note in Explained(explanation([0.0] * 6), None).notes())


def test_shares_are_null_where_contributions_do_not_sum_above_0() -> None:
    told = Explained(explanation([-1.0, 0.5]), None)
    assert all(math.isnan(unit["share"]) for unit in told.to_json()["units"])
    assert any("no shares" in note for note in told.notes())


def test_labels_that_cannot_be_trusted_say_why(tmp_path: Path) -> None:
    with labelled(tmp_path) as view:
        said = doubts(view)
        label, iou = view.labels
        q, heldout, chosen = view.known("q"), view.known("heldout_iou"), view.evidence.heldout_concept
        for unit in range(view.units):
            trusted = label[unit] >= 0 and iou[unit] > DETECTOR_IOU and not q[unit] >= SIGNIFICANT
            trusted = trusted and chosen[unit] in (-1, label[unit]) and not heldout[unit] <= DETECTOR_IOU
            if not trusted:
                assert said[unit], unit
            elif said[unit]:
                assert "images hold it" in said[unit]
        assert said[DEAD] == SAID_DEAD
        explained = Explained(explanation(ADDED), view)
        doubtful = {row.unit for row in explained.rows if row.doubt not in ("", SAID_DEAD, NO_LABEL)}
        lines = doubt_lines((row.unit, row.doubt) for row in explained.rows)
        assert len(lines) == len({said[unit] for unit in doubtful})
        assert all(line.startswith("? not to be trusted") for line in lines)


def test_the_place_of_a_peak_is_a_word() -> None:
    words = []
    for y in range(3):
        for x in range(3):
            values = np.zeros((3, 3), np.float32)
            values[y, x] = 1
            words.append(place_of_peak(values, None))
    assert words == [
        "upper left", "top", "upper right", "left", "centre", "right", "lower left", "bottom", "lower right"
    ]  # fmt: skip
    for nowhere in (np.zeros((3, 3)), np.ones((1, 1)), np.full((2, 2), np.nan)):
        assert place_of_peak(nowhere.astype(np.float32), None) == ""


def test_masks_are_those_of_the_store(tmp_path: Path) -> None:
    with labelled(tmp_path) as view:
        top = view.top(0)
        for values, mask in zip(top.maps, view.masks(0), strict=True):
            assert (mask_of(0, values, view) == mask).all()
        larger = np.repeat(np.repeat(top.maps[0], 2, 0), 2, 1)
        assert abs(mask_of(0, larger, view).mean() - view.masks(0)[0].mean()) < 0.15
    values = np.zeros((4, 4), np.float32)
    values[:2, :2] = 1
    assert 0.2 < mask_of(0, values, None).mean() < 0.4
    assert not mask_of(0, np.full((2, 2), np.nan, np.float32), None).any()


@pytest.mark.parametrize("several", [False, True])
def test_the_figure_has_a_panel_for_each_unit(tmp_path: Path, several: bool) -> None:
    with labelled(tmp_path) as view:
        one = explanation(ADDED, versus=1)
        if several:
            one = explanation(ADDED, images=one.images * 2, closeups=one.closeups * 2)
        figure = np.asarray(draw_explained(Explained(one, view)))
    panels = (figure.reshape(-1, 3) < 90).all(1).sum()  # dimmed pixels: units that speak for it, and against it
    assert figure.shape[1] > 1000
    assert panels > 4 * 100 * 100


def test_a_figure_of_units_that_all_add_nothing(tmp_path: Path) -> None:
    assert draw_explained(Explained(explanation([0.0] * 6), None)).height > 200
