"""``nd ablate``: units of a small network taken away, what each class loses, and what is refused.

Class k of the network is decided by unit k alone (tests/class_factory.py).
"""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import cli
import numpy as np
import pytest
from class_factory import write_folders, write_labelled, write_network
from faults import held, nd_in
from PIL import Image

from ndissect.engine.experiments.ablate import Ablation, ablate, random_sets
from ndissect.engine.experiments.effect_request import EffectRequest
from ndissect.engine.run.options import Options
from ndissect.engine.run.to_store import dissect_to_store
from ndissect.store import limits
from ndissect.store.errors import NDError, WrongUse
from ndissect.store.reader import Store
from ndissect.tui.cli.ablate import parse_units
from ndissect.tui.tables.ablated import Ablated

# Waits where a white image goes through for the first time, if it is told to.
SLOW = """
import os, time
from pathlib import Path

from net import network as whole


def network():
    made, transform = whole()

    def wait(module, given):
        here = Path("here")
        if "STOP" in os.environ and (given[0].mean((1, 2, 3)) > 250).any():
            del os.environ["STOP"]
            here.touch()
            while here.exists():
                time.sleep(0.01)

    made.units.register_forward_pre_hook(wait)
    return made, transform


network.classes = ["red", "green", "blue"]
"""
IMAGES = {f"{split}/{name}": [k] * 4 for split in ("train", "val") for k, name in enumerate(("red", "green", "blue"))}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """slow.py and net.py, images of their classes, and the store ``small.nd.h5`` of the network."""
    folder = tmp_path_factory.mktemp("made")
    write_network(folder)
    (folder / "slow.py").write_text(SLOW, encoding="utf-8")
    write_labelled(folder / "data", ("red-s", "green-s", "blue-s"))
    write_folders(folder / "images", IMAGES)
    Image.fromarray(np.full((16, 16, 3), 255, np.uint8)).save(folder / "images" / "val" / "red" / "9.png")
    options = Options(
        f"{folder / 'slow.py'}:network", ("units",), data=str(folder / "data"), quantile="0.2", null=0, device="cpu"
    )
    dissect_to_store(options, cli_console(), output=folder / "small.nd.h5")
    return folder


def cli_console() -> Any:
    from ndissect.engine.machine.console import Console

    return Console()


def request(folder: Path, images: str | None = "images", **more: Any) -> EffectRequest:
    at = None if images is None else str(folder / images)
    return EffectRequest(store=folder / "small.nd.h5", layer="units", images=at, options=Options(device="cpu"), **more)


def run(folder: Path, units: Any = None, *, images: str | None = "images", **more: Any) -> Ablation:
    return ablate(request(folder, images), units, write=False, **more)


def test_a_class_needs_the_unit_that_decides_it(made: Path) -> None:
    done = run(made)
    e = done.effects
    assert (e.units, e.splits, done.truth, e.origin["how"]) == (
        ((0,), (1,), (2,)),
        ("train", "val"),
        "images",
        "tail",
    )
    assert e.images.tolist() == [[4, 4, 4], [5, 4, 4]]
    assert (e.recall_without[-1, [1, 2], [1, 2]] == 0).all()
    with Store(made / "small.nd.h5") as store:
        ablated = Ablated(done, store.layer("units"))
        assert {row.name: row.needs[0].unit for row in ablated.classes} == {"red": 0, "green": 1, "blue": 2}
        assert {row.hurt.unit: row.hurt.name for row in ablated.units} == {0: "red", 1: "green", 2: "blue"}
        assert ablated.of_class(1)[0].unit == 1
        notes = "\n".join(ablated.notes([row.hurt for row in ablated.units]))
    assert "ranked on train (12 images), measured on val (13 images)" in notes
    assert "exact, by running what follows the layer" in notes
    assert "random unit: the mean over all 3 units" in notes


def test_json_has_values_without_each_unit(made: Path) -> None:
    done = run(made)
    with Store(made / "small.nd.h5") as store:
        view = store.layer("units")
        value = Ablated(done, view).to_json()
        label, iou = store.concepts.label(int(view.labels[0][0])), float(view.labels[1][0])
    assert {"layer", "by", "split", "classes", "images", "before", "units"} <= set(value)
    assert (value["layer"], value["by"], value["split"], value["images"]) == ("units", "zero", "val", 13)
    assert value["classes"] == ["red", "green", "blue"]
    first = value["units"][0]
    assert (first["unit"], first["label"], first["iou"]) == (0, label, iou)
    e = done.effects
    np.testing.assert_allclose(first["balanced_accuracy"], e.balanced_accuracy_without[-1, 0])
    np.testing.assert_allclose(first["recall"], e.recall_without[-1, 0])
    before = np.array(value["before"]["balanced_accuracy"])
    np.testing.assert_allclose(before, e.balanced_accuracy[-1])
    np.testing.assert_allclose(first["low"], np.maximum(before + e.low[-1, 0], 0), atol=1e-6)
    shares = np.array([[unit[end] for end in ("low", "high")] for unit in value["units"]])
    assert ((shares >= 0) & (shares <= 1)).all()
    assert (np.array(first["low"]) <= np.array(first["balanced_accuracy"]) + 1e-6).all()
    assert (np.array(first["balanced_accuracy"]) <= np.array(first["high"]) + 1e-6).all()


def test_several_units_are_also_taken_together_beside_random_ones(made: Path) -> None:
    done = run(made, [2, 1], draws=5)
    assert done.effects.units == ((1,), (2,), (1, 2))
    assert {n: len(e.units) for n, e in done.random.items()} == {1: 5, 2: 5}
    assert all(len(units) == n for n, e in done.random.items() for units in e.units)
    ablated = Ablated(done, None)
    change, beside = next((c, r) for c, r in ablated.together() if c.name == "green")
    assert (change.units, change.recall, change.label) == ((1, 2), 0, "")
    assert beside is not None
    drawn = done.random[2].change[-1, :, 1]
    assert (beside.draws, beside.mean) == (5, pytest.approx(drawn.mean()))
    assert beside.low <= beside.mean <= beside.high
    assert ablated.to_json()["together"]["units"] == [1, 2]
    assert random_sets(10, 3, 20) == random_sets(10, 3, 20)
    assert random_sets(10, 10, 20) == []
    assert run(made, [0, 1, 2]).effects.units[-1] == (0, 1, 2)


def test_effects_are_written_into_the_store_unless_it_is_not_wanted(made: Path, tmp_path: Path) -> None:
    store = tmp_path / "small.nd.h5"
    store.write_bytes((made / "small.nd.h5").read_bytes())
    asked = EffectRequest(store, layer="units", images=str(made / "images"), options=Options(device="cpu"))
    assert ablate(asked, write=False).written is None
    with Store(store) as opened:
        assert opened.layer("units").effects is None
    done = ablate(asked)
    assert done.written == store
    assert not any("replaced" in note for note in ablate(asked, [0, 1]).notes)
    with Store(store) as opened:
        effects = opened.layer("units").effects
        assert effects is not None
        assert effects.units == ((0,), (1,), (2,), (0, 1))
        assert (effects.hits_without[:, :3] == done.effects.hits_without).all()
        assert opened.classes is not None
        assert opened.classes.names == ("red", "green", "blue")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(limits, "EFFECTS", limits.Limit(17, "effects"))
        patch.setattr("ndissect.engine.experiments.ablate.predict_without", None)  # it is refused before
        with pytest.raises(WrongUse, match=r"limit is 17\n.*--no-store"):
            ablate(asked)
    assert ablate(asked, [2], "mean").notes[-1] == (
        "the store's effects of 4 ablations are replaced: they differ in what takes a unit's place"
    )
    assert [path.name for path in tmp_path.iterdir()] == ["small.nd.h5"]


def test_images_without_classes_are_judged_by_the_prediction(made: Path) -> None:
    done = ablate(
        EffectRequest(made / "small.nd.h5", layer="units", images=str(made / "images/val/red/0.png")), write=False
    )
    assert (done.truth, done.effects.splits, done.effects.images.sum()) == ("prediction", ("all",), 1)
    assert np.isnan(done.effects.balanced_accuracy).all()  # one image: there are no others
    ablated = Ablated(done, None)
    assert [row.name for row in ablated.classes] == ["red"]
    json.dumps(ablated.to_json())
    notes = "\n".join(ablated.notes([]))
    assert "its own prediction is taken for the class" in notes
    assert "ranked and measured on the same 1 image:" in notes
    assert "units by the mean score alone" in notes
    assert len(ablated.of_class(0)) == 3
    assert ablated.of_class(1) == []
    assert ablated.of_all(0) == "red, 1 image, and none of another class"
    assert "classes without an image, left out: 2 of 3" in notes


def test_two_classes_alone_and_the_scores_themselves(made: Path, tmp_path: Path) -> None:
    write_folders(tmp_path / "two", {"red": [0] * 5, "green": [1] * 5})
    asked = EffectRequest(network=f"{made / 'slow.py'}:network", images=str(tmp_path / "two"), layer="scores")
    done = ablate(asked)
    assert (done.written, done.effects.splits, done.layer, done.units) == (None, ("all",), "scores", 3)
    change = done.effects.change[0]
    assert change[0, 0] < 0
    assert np.isnan(change[:, 2]).all()
    assert change[2].tolist()[:2] == [0, 0]
    assert "no store: units have no labels" in done.notes


def test_by_the_mean_and_by_another_image(made: Path) -> None:
    mean, resampled = run(made, by="mean"), run(made, by="resample")
    assert (mean.effects.origin["by"], resampled.effects.origin["by"]) == ("mean", "resample")
    assert (mean.effects.score_without != resampled.effects.score_without).any()


def test_what_is_refused(made: Path) -> None:
    with pytest.raises(WrongUse, match="units has no unit 3"):
        run(made, [0, 3])
    with pytest.raises(WrongUse, match="purple"):
        run(made, class_name="purple")
    with pytest.raises(NDError):
        ablate(EffectRequest(made / "small.nd.h5", layer="layer9", images=str(made / "images")))
    assert run(made, class_name="Green").class_number == 1


def test_units_are_read_as_they_are_written() -> None:
    assert parse_units(None) == (None, None)
    assert parse_units("layer4") == ("layer4", None)
    assert parse_units("layer4:3,7,9-12,7") == ("layer4", [3, 7, 9, 10, 11, 12])
    for wrong in ("layer4:", ":3", "layer4:x", "layer4:5-3", "layer4:3,", "layer4:0-99999999", "layer4:" + "9" * 30):
        with pytest.raises(WrongUse, match="names no units"):
            parse_units(wrong)


def test_the_command_stops_and_goes_on(made: Path) -> None:
    args = ("ablate", "units", "-s", "small.nd.h5", "--images", "images", "-b", "2", "--no-store", "--json")
    whole = nd_in(made, *args)
    assert whole.returncode == 0, whole.stderr
    with held(made, *args, STOP="1") as command:
        command.signal(signal.SIGINT)
    ended = command.end()
    assert ended.returncode == 130
    cli.two_lines(
        "\n".join(ended.stderr.splitlines()[-2:]),
        "nd: stopped; what was predicted is saved",
        f"go on: nd {' '.join(args)}",
    )
    resumed = nd_in(made, *args)
    assert "note: going on after" in resumed.stderr
    assert json.loads(resumed.stdout) == json.loads(whole.stdout)
    assert not list((made / "cache" / "ablations").iterdir())


def test_the_command_prints_tables(made: Path) -> None:
    args = ("ablate", "-s", "small.nd.h5", "--images", "images", "--no-store")
    by_unit = nd_in(made, *args)
    head, *rows = [line.split("\t") for line in by_unit.stdout.splitlines()]
    assert head[:7] == ["unit", "label", "IoU", "hurts most", "change", "low", "high"]
    assert {row[0]: row[3] for row in rows} == {"0": "red", "1": "green", "2": "blue"}
    of_class = nd_in(made, *args, "--class", "blue")
    assert of_class.stdout.splitlines()[1].split("\t")[0] == "2"
    assert "over image blocks" in of_class.stderr
    for wrong in (("--curve",), ("--label", "tree"), ("--by", "magic"), ("--class", "red", "--curve", "units:3")):
        done = nd_in(made, *args, *wrong)
        assert (done.returncode, len(done.stderr.splitlines())) == (2, 2)
    lines = cli.on_terminal(*args, folder=made, columns=80).lines
    assert max(map(len, lines)) <= 80
    assert any("needs unit" in line for line in lines)
