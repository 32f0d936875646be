"""``nd dissect`` and ``nd layers``: from a network file and labelled images to a store and a summary."""

from __future__ import annotations

import json
import re
from pathlib import Path

import cli
import pytest

from ndissect.store.reader import Store


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return cli.workplace(tmp_path_factory.mktemp("place") / "work")


def test_a_dissection_writes_one_store_named_after_network_and_data_and_sums_it_up(place: Path) -> None:
    done = cli.the_dissection()
    assert {f for f in cli.files_in(place) if not f.startswith("small")} == {"net.py", "net-small.nd.h5"}
    header, units, deep = [line.split("\t") for line in done.stdout.splitlines()]
    summary = dict(zip(header, units, strict=True))
    assert (summary["layer"], summary["units"], summary["detectors"], summary["unique/cat"]) == ("units", "4", "3", "4")
    assert {c: summary[c] for c in ("object", "scene", "part", "color")} == {
        "object": "1",
        "scene": "1",
        "part": "1",
        "color": "1",
    }
    assert summary["best unit"] == "0 tree 1.00"
    assert deep[0] == "deep.pool"
    assert "12 images, 2 layers (units, deep.pool), 8 units" in done.stderr
    assert "net-small.nd.h5" in done.stderr


def test_the_store_says_how_to_run_it_again(place: Path) -> None:
    with Store(place / "net-small.nd.h5") as store:
        known = store.provenance
    assert known["command"] == " ".join(["nd", *cli.DISSECT])
    assert known["network"]["spec"] == "net.py:network"
    assert known["data"]["images"] == known["data"]["used"] == cli.IMAGES
    assert Path(known["folder"]).is_absolute()


def test_the_planted_units_are_found_and_the_dead_one_has_no_label(place: Path) -> None:
    units = cli.json_of("inspect", "units", "--sort", "unit", folder=place)["units"]
    assert [(u["label"], u["category"], u["iou"]) for u in units] == [
        ("tree", "object", 1.0),
        ("wheel", "part", 1.0),
        ("red", "color", 1.0),
        (None, None, 0.0),
    ]
    assert [u["dead"] for u in units] == [False, False, False, True]


def test_another_protocol_layers_and_name_as_json(place: Path) -> None:
    done = cli.nd(
        *("dissect", "net.py:network", "--data", "small", "--layers", "unit*,deep.pool", "--protocol", "pnas2020"),
        *("--grid", "16", "--min-images", "2", "--top", "3", "-b", "5", "-o", "other.nd.h5", "--json"),
        folder=place,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["store"] == "other.nd.h5"
    assert [x["layer"] for x in found["layers"]] == ["units", "deep.pool"]
    assert (found["protocol"]["name"], found["protocol"]["grid"]) == ("pnas2020+", [16, 16])
    assert found["protocol"]["min_images"] == 2
    assert set(found["layers"][0]["summary"]) == {
        "units",
        "detectors",
        "detectors_q05",
        "unique_per_category",
        "unique_best_label",
        "by_category",
    }
    assert len(cli.json_of("inspect", "units:0", "-s", "other.nd.h5", folder=place)["top_images"]) == 3
    (place / "other.nd.h5").unlink()


def test_layers_are_listed_with_their_units_and_maps_and_all_with_the_reason(place: Path) -> None:
    found = cli.json_of("layers", "net.py:network", "--input-size", "32", "--all", folder=place)
    assert found["network"] == "net.py:network"
    by_name = {x["layer"]: x for x in found["layers"]}
    assert by_name["deep.pool"] == {
        "layer": "deep.pool",
        "module": "MaxPool2d",
        "units": 4,
        "map": [8, 8],
        "why_not": None,
        "parameters": 0,
        "calls": 1,
        "note": None,
        "default": False,
    }
    assert by_name["pooled"]["map"] == [1, 1]


def test_a_terminal_shows_the_progress_the_summary_and_the_next_commands(tmp_path: Path) -> None:
    place = cli.workplace(tmp_path)
    broken = place / "small" / "images" / "made" / "0000.png"  # the first image, which is left out if asked
    broken.write_bytes(broken.read_bytes()[:60])
    seen = cli.on_terminal(*cli.DISSECT, "--skip-bad", "--force", folder=place)
    assert seen.code == 0, seen.text
    for phase in ("thresholds", "tally"):
        assert phase in seen.text
    assert re.search(r"11/11 \d+ images/s", seen.text), seen.text
    assert re.search(r"\d [GM]B", seen.text), seen.text
    assert "skipped made/0000.png: " in seen.text
    with Store(place / "net-small.nd.h5") as store:
        assert [s["image"] for s in store.provenance["data"]["skipped"]] == ["made/0000.png"]
        assert store.provenance["data"]["used"] == cli.IMAGES - 1
    # What stays on the screen, below the bar that was taken down: every column, none cut, none wrapped.
    table = seen.lines[-16:]
    # Of so few pairings and units none is told from chance.
    assert any(line.split() == ["units", *"430430", "tree", "1.00"] for line in table), seen.text
    assert any(line.split() == ["units", *"1111"] for line in table), seen.text
    assert "null: 4 wrong pairings; held out: train/val" in seen.text
    assert "…" not in seen.text
    assert "next: nd inspect deep.pool    nd overlay deep.pool:" in seen.text
