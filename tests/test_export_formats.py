"""``nd export`` as Parquet, JSON with evidence, and MILAN's arrays: what was in the store comes out, under a header."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import cli
import numpy as np
import pytest
import store_factory as factory

from ndissect.store.evidence import NUMBERS
from ndissect.store.files import atomic_folder
from ndissect.store.model import Dissection
from ndissect.store.reader import Store
from ndissect.store.writer import write_store
from ndissect.tui.reports.exemplars import SIDE, folder_name

parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed")


def full(**changes: Any) -> Dissection:
    """A dissection over a train and a val group, with evidence and a null."""
    return factory.dissection(groups=("train", "val"), evidence=True, **changes)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    write_store(tmp_path / "full.nd.h5", full())
    return tmp_path


def export(place: Path, *args: str) -> None:
    done = cli.nd("export", *args, folder=place)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr


def test_parquet_holds_every_unit_with_all_that_is_known(place: Path) -> None:
    export(place, "--format", "parquet", "-o", "units.parquet")
    rows = parquet.read_table(place / "units.parquet").to_pylist()
    with Store(place / "full.nd.h5") as store:
        concepts, C = store.concepts, store.concept_counts.area.sum(0)
        assert len(rows) == sum(store.layer(name).units for name in store.layer_names)
        for row in rows:
            view, u = store.layer(row["layer"]), row["unit"]
            label, value = int(view.labels[0][u]), view.labels[1][u]
            assert row["label"] == (concepts.label(label) if label >= 0 else None)
            assert row["category"] == (concepts.category_of(label) if label >= 0 else None)
            assert (row["iou"], row["dead"]) == (value, bool(view.statistics.dead[u]))
            assert row["threshold"] == view.statistics.threshold[u]
            assert (row["nan"], row["inf"]) == (view.statistics.nan[u], view.statistics.inf[u])
            if label >= 0:
                assert row["concept_number"] == concepts.number[label]
                ious, both, area = view.unit_ious(u)
                counts = (row["intersection"], row["area"], row["concept_area"])
                assert counts == (both[label], area[label], C[label])
                assert row["iou"] == ious[label] == counts[0] / (counts[1] + counts[2] - counts[0])
            for name in NUMBERS:
                known = getattr(view.evidence, name)[u]
                assert row[name] == (None if math.isnan(known) else known), name
            for k, category in enumerate(concepts.categories):
                best = int(view.best.concept[u, k])
                assert row[f"{category}-label"] == (concepts.label(best) if best >= 0 else None)
                assert row[f"{category}-concept_number"] == (concepts.number[best] if best >= 0 else -1)
                assert row[f"{category}-iou"] == view.best.iou[u, k]
                assert row[f"{category}-area"] == view.best.area[u, k]
    assert any(row["heldout_iou"] is None for row in rows)
    assert any(row["heldout_iou"] is not None for row in rows)
    export(place, "features.0", "--format", "parquet", "-o", "one.parquet")
    assert {row["layer"] for row in parquet.read_table(place / "one.parquet").to_pylist()} == {"features.0"}


def test_every_header_carries_protocol_threshold_null_and_split(place: Path) -> None:
    export(place, "--format", "parquet", "-o", "u.parquet")
    export(place, "--format", "json", "-o", "u.json")
    export(place, "--format", "milan", "-o", "u")
    headers = [
        json.loads(parquet.read_schema(place / "u.parquet").metadata[b"ndissect"]),
        json.loads((place / "u.json").read_text(encoding="utf-8")),
        json.loads((place / "u" / "about.json").read_text(encoding="utf-8")),
    ]
    for found in headers:
        assert found["protocol"] == factory.PROTOCOL.to_json()
        assert (found["threshold"], found["null"], found["split"]) == (0.04, factory.PAIRINGS, ["train", "val"])
        assert any("q 0.05" in note for note in found["notes"])
        assert found["provenance"] == json.loads(json.dumps(factory.provenance()))
    write_store(place / "full.nd.h5", factory.dissection())
    export(place, "--format", "json", "-o", "bare.json")
    bare = json.loads((place / "bare.json").read_text(encoding="utf-8"))
    assert (bare["null"], bare["split"]) == (0, None)


def test_json_holds_the_evidence_of_each_unit(place: Path) -> None:
    export(place, "--format", "json", "-o", "u.json")
    found = json.loads((place / "u.json").read_text(encoding="utf-8"))
    with Store(place / "full.nd.h5") as store:
        for layer in found["layers"]:
            view = store.layer(layer["layer"])
            assert layer["summary"]["detectors_q05"] == view.summary()["detectors_q05"]
            for unit in layer["units"]:
                for name in NUMBERS:
                    known = getattr(view.evidence, name)[unit["unit"]]
                    assert unit[name] == (None if math.isnan(known) else known), name
                row = view.evidence.heldout_concept[unit["unit"]]
                assert unit["heldout_label"] == (store.concepts.label(int(row)) if row >= 0 else None)


def test_parquet_of_a_table_without_evidence_has_nulls(tmp_path: Path) -> None:
    place = cli.workplace(tmp_path)
    assert cli.nd("export", "units", "-o", "t.csv", folder=place).returncode == 0
    assert cli.nd("import", "t.csv", folder=place).returncode == 0
    export(place, "-s", "t.nd.h5", "--format", "parquet", "-o", "t.parquet")
    rows = parquet.read_table(place / "t.parquet").to_pylist()
    assert [row["label"] for row in rows] == ["tree", "wheel", "red", None]
    assert {row[name] for row in rows for name in ("threshold", *NUMBERS)} == {None}


def test_what_is_missing_or_in_the_way_is_said(place: Path) -> None:
    before = cli.files_in(place)
    cli.failed(cli.nd("export", "--format", "parquet", folder=place), 2, "needs a file", "-o units.parquet")
    cli.failed(cli.nd("export", "--format", "milan", folder=place), 2, "needs a folder", "-o exemplars")
    (place / "first").mkdir()
    (place / "first" / "pyarrow.py").write_text("raise ImportError('not here')")
    lacking = {"PYTHONPATH": str(place / "first")}
    done = cli.nd("export", "--format", "parquet", "-o", "u.parquet", folder=place, env=lacking)
    cli.failed(done, 1, "pyarrow", "pip install 'ndissect[parquet]'")
    shutil.rmtree(place / "first")
    gone = cli.nd("export", "--format", "milan", "-o", "gone/x", folder=place)
    cli.failed(gone, 2, "gone does not exist", "mkdir -p")
    assert cli.files_in(place) == before
    (place / "u.parquet").write_text("mine")
    cli.failed(cli.nd("export", "--format", "parquet", "-o", "u.parquet", folder=place), 2, "--force")
    assert (place / "u.parquet").read_text() == "mine"
    write_store(place / "full.nd.h5", full(images=False))
    done = cli.nd("export", "--format", "milan", "-o", "ex", folder=place)
    cli.failed(done, 1, "holds no top images")
    assert not (place / "ex").exists()


def test_milan_arrays_have_the_shapes_that_its_code_asks_for(place: Path) -> None:
    export(place, "--format", "milan", "-o", "ex")
    layers = [entry.name for entry in sorted((place / "ex").iterdir()) if entry.is_dir()]
    with Store(place / "full.nd.h5") as store:
        assert layers == sorted(store.layer_names)
        for name in layers:
            view = store.layer(name)
            images, masks, units = (np.load(place / "ex" / name / f"{x}.npy") for x in ("images", "masks", "units"))
            assert (images.dtype, masks.dtype, units.dtype) == (np.uint8, np.uint8, np.int64)
            assert images.shape == (view.units, 3, 3, SIDE, SIDE)
            assert masks.shape == (view.units, 3, 1, SIDE, SIDE)
            assert units.tolist() == list(range(view.units))
            assert set(np.unique(masks)) == {0, 1}
            for u in range(view.units):
                top, fired = view.top(u), view.masks(u)
                for i, row in enumerate(top.image):
                    colour = np.array((20 * row, 255 - 20 * row, 90))  # of the store's pictures, each of one colour
                    assert np.abs(images[u, i].reshape(3, -1).mean(1) - colour).max() < 6
                    assert masks[u, i].mean() == pytest.approx(fired[i].mean(), abs=0.03)
                assert not images[u, len(top.image) :].any()
                assert not masks[u, len(top.image) :].any()
        assert len(store.layer("features.0").top(factory.WITH_NAN).image) == 2, "a unit with fewer images than others"


def test_exemplars_are_replaced_only_if_asked_and_nothing_else_ever_is(place: Path) -> None:
    export(place, "features.0", "--format", "milan", "-o", "ex")
    cli.failed(cli.nd("export", "--format", "milan", "-o", "ex", folder=place), 2, "ex exists", "--force")
    assert [x.name for x in (place / "ex").iterdir() if x.is_dir()] == ["features.0"]
    export(place, "layer4.1.conv2", "--format", "milan", "-o", "ex", "--force")
    assert [x.name for x in (place / "ex").iterdir() if x.is_dir()] == ["layer4.1.conv2"]
    (place / "ex" / "annotations.csv").write_text("mine")
    cli.failed(cli.nd("export", "--format", "milan", "-o", "ex", "--force", folder=place), 2, "ex is no folder")
    assert (place / "ex" / "annotations.csv").read_text() == "mine"
    cli.failed(cli.nd("export", "--format", "milan", "-o", ".", "--force", folder=place), 2, "is no folder")
    (place / "empty").mkdir()
    export(place, "features.0", "--format", "milan", "-o", "empty")
    assert (place / "empty" / "features.0" / "units.npy").is_file()
    assert not [name for name in cli.files_in(place) if ".part" in name or ".old" in name]


def test_a_folder_is_put_in_place_whole_or_not_at_all(tmp_path: Path) -> None:
    target = tmp_path / "made"
    target.mkdir()
    (target / "old").write_text("old")
    with pytest.raises(KeyboardInterrupt), atomic_folder(target) as part:
        (part / "new").write_text("half")
        raise KeyboardInterrupt
    assert [p.name for p in tmp_path.rglob("*")] == ["made", "old"]
    with atomic_folder(target) as part:
        (part / "new").write_text("whole")
        assert (target / "old").exists(), "until the new one is whole"
    assert [p.name for p in tmp_path.rglob("*")] == ["made", "new"]


def test_no_layer_leads_out_of_the_folder() -> None:
    names = [".", "..", "../x", "/etc", "a/b", "a%2Fb", "%2E", ".hidden", "layer4.1.conv2"]
    made = [folder_name(name) for name in names]
    assert len(set(made)) == len(names)
    assert all("/" not in name and name.strip(".") and not name.startswith(".") for name in made)
    assert made[-1] == names[-1]
