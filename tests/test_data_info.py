"""``nd data info``: what a data set holds, from its tables."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from broden_factory import Concept, Picture, drop_column, write_broden

from ndissect.engine.data.info import CategoryInfo, ConceptInfo, describe
from ndissect.store.errors import NDError

MINI = Path(__file__).resolve().parents[2] / "shared" / "data" / "broden_mini"

HALF = np.zeros((16, 16), int)
HALF[:8] = 3
FULL = np.full((16, 16), 4)
CONCEPTS = [Concept(3, "tree"), Concept(4, "sky"), Concept(7, "street-s", "scene"), Concept(9, "wheel", "part")]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    pictures = [
        Picture({"object": [HALF, FULL]}, {"scene": [7]}, name="ade/a.png", split="train"),
        Picture({"object": HALF}, name="ade/deep/b.png", split="train"),
        Picture({"object": HALF}, name="dtd/c.png", split="val", pixels=np.zeros((20, 30, 3), np.uint8)),
        Picture(name="d.png", split="val"),
    ]
    return write_broden(tmp_path / "data", pictures, CONCEPTS)


def test_images_by_split_source_and_size(data: Path) -> None:
    info = describe(data)
    assert info.name == "data"
    assert info.images == 4
    assert info.splits == {"train": 2, "val": 2}
    assert info.sources == {".": 1, "ade": 2, "dtd": 1}
    assert info.image_sizes == {"32 x 32": 3, "20 x 30": 1}
    assert info.map_size == (16, 16)
    assert info.concepts == 4


def test_categories_in_report_order_with_their_empty_cells(data: Path) -> None:
    assert describe(data).categories == (
        CategoryInfo("object", concepts=2, images=3, empty=1, coverage=2.5),
        CategoryInfo("scene", concepts=1, images=1, empty=3, coverage=1.0),
        CategoryInfo("part", concepts=1, images=0, empty=4, coverage=0.0),
        CategoryInfo("material", concepts=0, images=0, empty=4, coverage=0.0),
        CategoryInfo("texture", concepts=0, images=0, empty=4, coverage=0.0),
        CategoryInfo("color", concepts=0, images=0, empty=4, coverage=0.0),
    )


def test_most_and_least_frequent_concepts(data: Path) -> None:
    info = describe(data, n=2)
    tree = ConceptInfo(3, "tree", "object", images=3, coverage=1.5)
    sky = ConceptInfo(4, "sky", "object", images=1, coverage=1.0)
    street = ConceptInfo(7, "street-s", "scene", images=1, coverage=1.0)
    wheel = ConceptInfo(9, "wheel", "part", images=0, coverage=0.0)
    assert info.most == (tree, sky)
    assert info.least == (wheel, sky)
    assert describe(data, n=99).most == (tree, sky, street, wheel)
    assert describe(data, n=0).most == ()


def test_what_the_tables_do_not_say_is_left_out(data: Path) -> None:
    drop_column(data / "label.csv", "coverage")
    assert [c.coverage for c in describe(data).most] == [None] * 4
    for path in data.glob("c_*.csv"):
        path.unlink()
    assert describe(data).categories[0].coverage is None
    drop_column(data / "label.csv", "frequency")
    assert describe(data).most == describe(data).least == ()


def test_the_answer_is_plain_json(data: Path) -> None:
    assert json.loads(json.dumps(asdict(describe(data)), allow_nan=False))["splits"] == {"train": 2, "val": 2}
    drop_column(data / "label.csv", "coverage")
    assert json.loads(json.dumps(asdict(describe(data)), allow_nan=False))["most"][0]["coverage"] is None


def test_faulty_tables_are_told(data: Path) -> None:
    drop_column(data / "index.csv", "ih")
    with pytest.raises(NDError, match=r"index\.csv: no column ih"):
        describe(data)


@pytest.mark.skipif(not MINI.is_dir(), reason="the real data of shared/data/broden_mini are not here")
def test_the_real_data() -> None:
    info = describe(MINI, n=1)
    assert (info.images, info.concepts, info.map_size) == (1551, 159, (112, 112))
    assert info.splits == {"train": 957, "val": 594}
    assert info.sources["camvid"] == 291
    assert {c.name: c.concepts for c in info.categories if c.concepts} == {
        "object": 128,
        "scene": 2,
        "part": 8,
        "texture": 10,
        "color": 11,
    }
    material = next(c for c in info.categories if c.name == "material")
    assert (material.concepts, material.empty) == (0, 1551)
    assert (info.most[0].name, info.most[0].images) == ("grey-c", 1495)
