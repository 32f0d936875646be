"""``nd export`` and ``nd import``: the 2017 table, JSON, and the way back."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import cli
import pytest

PUBLISHED = Path(__file__).resolve().parents[2] / "shared" / "data" / "published"


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return cli.workplace(tmp_path)


def test_csv_has_the_columns_of_2017_with_units_from_1_the_best_first(place: Path) -> None:
    done = cli.nd("export", "units", folder=place)
    assert (done.returncode, done.stderr) == (0, "units count from 1, as in the 2017 tables\n")
    rows = list(csv.DictReader(io.StringIO(done.stdout)))
    assert list(rows[0])[:4] == ["unit", "category", "label", "score"]
    assert list(rows[0])[4:9] == ["object-label", "object-truth", "object-activation", "object-intersect", "object-iou"]
    assert [r["unit"] for r in rows] == ["1", "2", "3", "4"]
    assert [(r["label"], float(r["score"])) for r in rows] == [("tree", 1), ("wheel", 1), ("red-c", 1), ("", 0)]
    both, area, truth = (int(rows[0][f"object-{k}"]) for k in ("intersect", "activation", "truth"))
    assert both == area == truth > 0
    assert "1" in cli.nd("export", "--help", folder=place).stdout
    assert "units from 1" in " ".join(cli.nd("export", "--help", folder=place).stdout.split())


def test_a_table_that_was_exported_imports_to_the_same_numbers(place: Path) -> None:
    assert cli.nd("export", "deep.pool", "-o", "table.csv", folder=place).returncode == 0
    done = cli.nd("import", "table.csv", folder=place)
    assert (done.returncode, done.stdout) == (0, "table.nd.h5\n")
    assert "nd inspect -s table.nd.h5" in done.stderr
    before = cli.json_of("inspect", "deep.pool", "--sort", "unit", "-s", "net-small.nd.h5", folder=place)
    after = cli.json_of("inspect", "table", "--sort", "unit", "-s", "table.nd.h5", folder=place)
    for one, other in zip(before["units"], after["units"], strict=True):
        assert {k: one[k] for k in ("unit", "label", "category", "iou")} == {
            k: other[k] for k in ("unit", "label", "category", "iou")
        }
        assert other["threshold"] is None
    assert after["summary"].pop("detectors_q05") is None, "the table has no null"
    assert before["summary"].pop("detectors_q05") is not None
    assert before["summary"] == after["summary"]
    again = cli.nd("export", "-s", "table.nd.h5", folder=place)
    assert again.stdout == (place / "table.csv").read_text()


def test_every_look_up_copes_with_an_imported_store(place: Path) -> None:
    cli.nd("export", "units", "-o", "t.csv", folder=place)
    assert cli.nd("import", "t.csv", "--layer", "conv5", "-o", "named.nd.h5", folder=place).returncode == 0
    at = ("-s", "named.nd.h5")
    assert cli.json_of("inspect", *at, folder=place)["layer"] == "conv5", "a store of one layer needs no name"
    one = cli.json_of("inspect", "conv5:0", *at, folder=place)
    assert (one["label"], one["top_images"], one["threshold"]) == ("tree", [], None)
    assert [c["images"] for c in cli.json_of("concepts", *at, folder=place)["concepts"]] == [-1] * 4
    assert cli.json_of("concepts", "tree", *at, folder=place)["units"][0]["unit"] == 0
    for args in (("inspect",), ("inspect", "conv5:0"), ("concepts",), ("concepts", "tree")):
        seen = cli.on_terminal(*args, *at, folder=place)
        assert seen.code == 0, seen.text
        assert "tree" in seen.text


def test_json_holds_every_layer_and_says_that_units_count_from_0(place: Path) -> None:
    done = cli.nd("export", "--format", "json", folder=place)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["units"] == "counted from 0"
    assert [x["layer"] for x in found["layers"]] == ["units", "deep.pool"]
    assert found["provenance"]["network"]["spec"] == "net.py:network"
    first = found["layers"][0]["units"][0]
    assert (first["unit"], first["label"]) == (0, "tree")
    assert first["best"]["object"]["concept"] == "tree"
    assert cli.nd("export", "units", "--format", "json", "-o", "one.json", folder=place).stdout == ""
    assert [x["layer"] for x in json.loads((place / "one.json").read_text())["layers"]] == ["units"]


def test_what_cannot_be_exported_or_imported_is_said_and_leaves_no_file(place: Path) -> None:
    before = cli.files_in(place)
    cli.failed(cli.nd("export", folder=place), 2, "holds one layer", "nd export deep.pool")
    cli.failed(cli.nd("export", "unit", folder=place), 2, "no layer 'unit'", "units")
    cli.failed(cli.nd("export", "--format", "xml", folder=place), 2, "xml", "csv")
    cli.failed(cli.nd("export", "units", "-o", "gone/x.csv", folder=place), 2, "gone does not exist", "mkdir -p gone")
    cli.failed(cli.nd("import", "gone.csv", folder=place), 1, "gone.csv")
    cli.failed(cli.nd("import", "net-small.nd.h5", folder=place), 1, "net-small.nd.h5")
    assert cli.files_in(place) == before
    cli.nd("export", "units", "-o", "t.csv", folder=place)
    rows = list(csv.reader((place / "t.csv").read_text().splitlines()))
    at = rows[0].index("part-truth")
    (place / "less.csv").write_text("\n".join(",".join(r[:at] + r[at + 1 :]) for r in rows))
    cli.failed(cli.nd("import", "less.csv", folder=place), 1, "less.csv has no column part-truth")
    rows[1][rows[0].index("object-iou")] = "0.5"
    (place / "odd.csv").write_text("\n".join(",".join(r) for r in rows))
    cli.failed(cli.nd("import", "odd.csv", folder=place), 1, "odd.csv, line 2", "object-iou")
    assert cli.files_in(place) == before | {"t.csv", "less.csv", "odd.csv"}


def test_a_file_that_exists_is_asked_about_on_a_terminal_and_kept_elsewhere(place: Path) -> None:
    table = place / "t.csv"
    table.write_text("mine")
    cli.failed(cli.nd("export", "units", "-o", "t.csv", folder=place), 2, "t.csv exists", "--force")
    assert table.read_text() == "mine"
    for answer in ("n\n", "\n", "\x04"):
        with cli.Terminal("export", "units", "-o", "t.csv", folder=place) as terminal:
            terminal.wait_for("t.csv exists. Replace it? [y/N]")
            terminal.type(answer)
        assert terminal.code == 2, terminal.text
        assert "t.csv is kept" in terminal.text
        assert table.read_text() == "mine"
    with cli.Terminal("export", "units", "-o", "t.csv", folder=place) as terminal:
        terminal.wait_for("Replace it?")
        terminal.type("y\n")
    assert terminal.code == 0, terminal.text
    assert table.read_text().startswith("unit,")
    assert cli.nd("import", "t.csv", "--layer", "a", folder=place).returncode == 0
    cli.failed(cli.nd("import", "t.csv", "--layer", "b", folder=place), 2, "t.nd.h5 exists", "--force")
    assert cli.json_of("inspect", "-s", "t.nd.h5", folder=place)["layer"] == "a"
    assert cli.nd("import", "t.csv", "--layer", "b", "--force", folder=place).returncode == 0
    assert cli.json_of("inspect", "-s", "t.nd.h5", folder=place)["layer"] == "b"


@pytest.mark.skipif(not PUBLISHED.is_dir(), reason="the published tables are not here")
def test_a_published_table_shows_the_published_numbers(tmp_path: Path) -> None:
    table = PUBLISHED / "ResNet-152-model_imagenet.csv"
    assert cli.nd("import", str(table), folder=tmp_path).returncode == 0
    found = cli.json_of("inspect", "-s", "ResNet-152-model_imagenet.nd.h5", folder=tmp_path)
    rows = list(csv.DictReader(table.read_text().splitlines()))
    detectors = sum(float(r["score"]) > 0.04 for r in rows)
    assert (found["summary"]["units"], found["summary"]["detectors"]) == (len(rows), detectors)
    by_unit = {u["unit"]: u for u in found["units"]}
    for row in rows:
        assert by_unit[int(row["unit"]) - 1]["iou"] == pytest.approx(float(row["score"]), abs=1e-12)
