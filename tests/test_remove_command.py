"""``nd ablate`` on a generator's store, as it is typed: tables, JSON, the sheet, what is refused, and a kill."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import planted_generator
import pytest
from PIL import Image
from store_factory import write_small
from typer.testing import CliRunner

from ndissect.engine.machine.console import Console
from ndissect.engine.run.options import Options
from ndissect.engine.run.to_store import dissect_to_store
from ndissect.store.errors import WrongUse
from ndissect.store.reader import Store
from ndissect.tui.cli.effect_options import named_store
from ndissect.tui.cli.main import app

PLANTED = Path(planted_generator.__file__)
TOP = {"n", "units", "after", "low", "high", "random", "others"}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The store of the planted generator."""
    path = tmp_path_factory.mktemp("planted") / "planted.nd.h5"
    spec = f"{PLANTED}:generator"
    options = Options(spec, ("layer",), labeller=f"{PLANTED}:labeller", samples=40, quantile="0.6", null=0, top=2)
    dissect_to_store(options, Console(), output=path)
    return path


@pytest.fixture
def store(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it in the folder where commands run."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ND_STORE", raising=False)
    return Path(shutil.copy(made, tmp_path / "planted.nd.h5"))


def nd(*words: str) -> str:
    result = CliRunner().invoke(app, words, standalone_mode=False)
    if result.exception is not None:
        raise result.exception
    return result.stdout


def parsed(*words: str) -> Any:
    return json.loads(nd(*words, "--json"))


def test_json_has_the_shares_of_each_removal(store: Path) -> None:
    told = parsed("ablate", f"{store}:layer", "--label", "tree", "--top", "1,2", "--samples", "30")
    assert told["label"] == "tree"
    assert 0 < told["before"] < 1
    assert told["samples"] == 30
    assert "zeroed at the layer's output, what follows it run again" in told["how"]
    assert "not by hand" in told["how"]
    assert [t["n"] for t in told["top"]] == [1, 2]
    first = told["top"][0]
    assert first.keys() >= TOP
    assert first["units"] == [2]
    assert first["after"] == first["low"] == 0  # no share is below
    assert first["high"] >= 0
    assert set(first["others"]) == {"building", "sky", "door"}
    assert first["others"]["sky"] == 0


def test_the_store_may_be_named_by_itself(store: Path) -> None:
    words = ("--label", "sky", "--top", "1", "--samples", "8")
    named = parsed("ablate", "layer", "-s", str(store), *words)
    assert named["top"] == parsed("ablate", f"{store}:layer", *words)["top"] == parsed("ablate", *words)["top"]


def test_units_alone_are_told_and_written(store: Path) -> None:
    told = parsed("ablate", f"{store}:layer:2,4", "--samples", "20")
    assert [unit["unit"] for unit in told["units"]] == [2, 4]
    assert told["units"][0]["effects"]["tree"]["after"] == 0
    assert {effect["change"] for effect in told["units"][1]["effects"].values()} == {0}
    assert told["written"]
    with Store(store) as there:
        effects = there.layer("layer").concept_effects
    assert effects is not None
    assert effects.units.tolist() == [2, 4]
    text = nd("ablate", f"{store}:layer:2,4", "--samples", "20", "--no-store")
    assert text.splitlines()[0].split("\t")[:4] == ["unit", "label", "IoU", "falls most"]
    assert text.splitlines()[1].split("\t")[:2] == ["2", "tree"]


def test_a_sheet_of_before_and_after(store: Path) -> None:
    text = nd("ablate", f"{store}:layer", "--label", "tree", "--top", "1,4", "--samples", "20", "-o", "sheet.png")
    assert text.splitlines()[0].split("\t")[:3] == ["n", "units", "after"]
    with Image.open("sheet.png") as picture:
        sheet = picture.convert("RGB")
    green = [y for y in range(sheet.height) if any(sheet.getpixel((x, y)) == (0, 255, 0) for x in (230, 235, 200))]
    assert green  # trees stand in the first column of pictures
    later = [sheet.getpixel((x, y)) for x in range(254, sheet.width) for y in range(0, sheet.height, 3)]
    assert (0, 255, 0) not in later


def test_flags_that_do_not_fit_are_refused(store: Path, tmp_path: Path) -> None:
    other = tmp_path / "other" / "small.nd.h5"
    other.parent.mkdir()
    write_small(other)
    for words, match in (
        ((f"{store}:layer", "--top", "1"), "--top goes with --label"),
        ((f"{store}:layer:3", "--label", "tree"), "chooses the units by itself"),
        ((f"{store}:layer", "--label", "tree", "--top", "1,x"), "no number of units"),
        ((f"{store}:layer", "--label", "tree", "--top", "0"), "no number of units"),
        ((f"{store}:layer", "--label", "tree", "--top", "9"), "8 units, of which 9"),
        ((f"{store}:layer", "--label", "treee"), "treee"),
        ((f"{store}:layer", "--label", "tree", "--by", "mean"), "none of iou, effect"),
        ((f"{store}:layer", "--class", "kitchen"), "--class does not go with it"),
        ((f"{store}:layer", "--images", "photos"), "--images does not go with it"),
        ((f"{store}:layer", "--size", "32"), "--size does not go with it"),
        ((f"{store}:layer", "--label", "tree", "-o", "sheet.jpg"), "PNG"),
        ((f"{store}:layer", "-s", str(other)), "two stores are named"),
        ((f"{other}:features.0", "--top", "1"), "--top does not go with it"),
        ((f"{other}:features.0", "--samples", "10"), "--samples does not go with it"),
        ((f"{other}:features.0", "--labeller", "x.py:y"), "--labeller does not go with it"),
    ):
        with pytest.raises(WrongUse, match=match):
            nd("ablate", *words)


def test_a_store_before_a_layer() -> None:
    assert named_store("a/b.nd.h5:layer4:3,7", None) == (Path("a/b.nd.h5"), "layer4:3,7")
    assert named_store("b.nd.h5", None) == (Path("b.nd.h5"), None)
    assert named_store("layer4:3", Path("c.nd.h5")) == (Path("c.nd.h5"), "layer4:3")
    assert named_store(None, None) == (None, None)
