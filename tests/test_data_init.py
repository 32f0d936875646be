"""``nd data init``: a data set of one's own images and masks, which stay where they are."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import cli
import numpy as np
import pytest
from broden_factory import Concept, Picture, write_broden
from mask_factory import halves, write_folder
from PIL import Image

from ndissect.engine.data.batch_reader import BatchReader
from ndissect.engine.data.check import check_dataset, first_of_each_kind
from ndissect.engine.data.formats import open_dataset, open_folder
from ndissect.engine.data.init import Draft, default_folder, draft, find_names, write
from ndissect.engine.data.labelled_files import LabelledFiles
from ndissect.engine.data.mask_survey import survey
from ndissect.store.errors import NDError, NotReplaced, WrongUse
from ndissect.store.protocol import make_protocol


def own(root: Path, maps: dict[str, Any], **options: Any) -> tuple[Path, Path]:
    """Folders of images and masks as people have them, without a table of names."""
    write_folder(root, maps, options.pop("names", None), **options)
    return root / options.get("images", "images"), root / options.get("masks", "masks")


def drafted(images: Path, masks: Path, names: Path | None = None) -> Draft:
    table = find_names(masks, names)
    return draft(survey(images, masks, palette_as_colours=table.colours_alone), table)


def rows_of(folder: Path) -> list[dict[str, str]]:
    with (folder / "labels.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def listing(*folders: Path) -> set[tuple[str, int]]:
    return {(str(path), path.stat().st_mtime_ns) for folder in folders for path in folder.rglob("*")}


def test_it_points_to_the_files_where_they_are(tmp_path: Path) -> None:
    images, masks = own(tmp_path / "pets", {"a": {"": halves(1, 2)}, "b": {"": halves(0, 1)}})
    before = listing(images.parent)
    folder = write(drafted(images, masks), tmp_path / "set")
    assert listing(images.parent) == before
    assert sorted(path.name for path in folder.iterdir()) == ["dataset.json", "labels.csv"]
    data = open_dataset(folder)
    assert isinstance(data, LabelledFiles)
    assert (data.name, data.names, data.concepts.name) == ("set", ("a.jpg", "b.jpg"), ("class 1", "class 2"))
    assert data.image_path(0) == images / "a.jpg"
    assert (data.on_grid((16, 16)).read(0).maps == halves(1, 2)).all()
    assert check_dataset(folder) == []
    assert default_folder(images) == Path("pets-data")


def test_it_says_what_it_saw(tmp_path: Path) -> None:
    maps = {"a": {"": halves(1, 7)}, "b": {"": halves(0, 255)}, "c": {"": halves(1, 1, (9, 30))}, "bare": {}}
    images, masks = own(tmp_path / "pets", maps, names="1,cat\n2,dog\n0,void\n")
    (masks / "stray.png").write_bytes((masks / "a.png").read_bytes())
    (masks / "b.png").with_name("a.hair.png").write_bytes(b"no image")
    plan = drafted(images, masks)
    assert list(plan.explanation) == [
        "3 images with 4 masks, by their names",
        "images: 32 x 32 (3); masks: 16 x 16 (2), 9 x 30 (1) pixels",
        f"{images}: 1 image without a mask in {masks}, left out: bare.jpg",
        f"{masks}: 1 mask without an image in {images}: stray.png",
        f"names: 3 in {tmp_path / 'pets' / 'labels.csv'}, the first '1 cat'; no label: 0 void",
        "names that are in no mask: 1 (dog)",
        "numbers without a name: 7 (masks: 1); they are called class N in labels.csv",
        "no label: 255 (masks: 1)",
        "masks of another shape than their image: 1 (c.png)",
        "files that cannot be read: 1 (a.hair.png: not a readable label map: unknown format)",
    ]
    folder = write(plan, tmp_path / "set")
    assert [row["name"] for row in rows_of(folder)] == ["cat", "dog", "void", "class 7"]


def test_colours_without_names_are_called_after_themselves(tmp_path: Path) -> None:
    pixels = np.zeros((16, 16, 3), np.uint8)
    pixels[:8], pixels[8:, :4] = (255, 0, 0), (0, 128, 0)
    images, masks = own(tmp_path, {"a": {"": pixels}})
    (tmp_path / "names.csv").write_text("name,color\ncat,#ff0000\n")
    folder = write(drafted(images, masks, tmp_path / "names.csv"), tmp_path / "set")
    assert [(row["name"], row["color"]) for row in rows_of(folder)] == [
        ("cat", "#ff0000"),
        ("class #008000", "#008000"),
    ]
    data = open_folder(folder)
    assert np.unique(data.read(0).maps).tolist() == [0, 1, 2]
    assert check_dataset(folder) == []


def test_a_table_of_colours_names_those_of_a_palette(tmp_path: Path) -> None:
    images, masks = own(tmp_path, {"a": {"": halves(0, 1)}}, names="#ff0000,cat\n")
    image = Image.fromarray(halves(0, 1)).convert("P")
    image.putdata(halves(0, 1).ravel().tolist())
    image.putpalette([0, 0, 0, 255, 0, 0])
    image.save(masks / "a.png")
    folder = write(drafted(images, masks), tmp_path / "set")
    assert [row["name"] for row in rows_of(folder)] == ["cat"]
    assert np.unique(open_folder(folder).read(0).maps).tolist() == [0, 1]


def test_masks_in_folders_by_what_they_show(tmp_path: Path) -> None:
    images, masks = own(tmp_path, {"a": {}, "b": {}})
    for part in ("hair", "skin"):
        (masks / part).mkdir()
        Image.fromarray(halves(0, 255)).save(masks / part / "a.png")
    folder = write(drafted(images, masks), tmp_path / "set")
    assert [(row["number"], row["name"], row["category"]) for row in rows_of(folder)] == [
        ("255", "hair", "hair"),
        ("255", "skin", "skin"),
    ]
    data = open_folder(folder)
    assert data.names == ("a.jpg",)
    assert [np.unique(one).tolist() for one in data.read(0).maps] == [[0, 255], [0, 256]]


@pytest.mark.parametrize("names", ["", "1,cat\n2,dog\n"], ids=["no table", "a table"])
def test_a_black_and_white_mask_beside_others_is_a_concept_of_its_own(tmp_path: Path, names: str) -> None:
    maps = {"a": {"": halves(1, 255), "hair": halves(0, 255)}, "b": {"": halves(2, 0), "hair": halves(255, 255)}}
    images, masks = own(tmp_path, maps, **({"names": names} if names else {}))
    plan = drafted(images, masks)
    assert "images: 32 x 32 (2); masks: 16 x 16 (4) pixels" in plan.explanation, "each image counts once"
    assert "masks of 0 and 255 alone: hair; what is not 0 there is a concept of that name" in plan.explanation
    assert "no label: 0 (masks: 1), 255 (masks: 1)" in plan.explanation, "255 of the other masks"
    folder = write(plan, tmp_path / "set")
    assert [(row["number"], row["name"]) for row in rows_of(folder)][2:] == [("3", "hair")]
    data = open_folder(folder)
    assert [np.unique(one).tolist() for one in data.read(0).maps] == [[0, 3], [0, 1]], "a.hair.png, a.png"
    assert np.unique(data.read(1).maps[0]).tolist() == [3]
    assert check_dataset(folder) == []


def test_black_and_white_masks_are_one_concept(tmp_path: Path) -> None:
    images, masks = own(tmp_path, {"a": {"": halves(0, 255)}, "b": {"": halves(0, 0)}})
    folder = write(drafted(images, masks), tmp_path / "set")
    assert [(row["number"], row["name"]) for row in rows_of(folder)] == [("255", "class 255")]
    assert open_folder(folder).read(0).maps.any()


@pytest.mark.parametrize(("highest", "meant"), [(1, ["sky", "wall"]), (2, ["sky", ""])])
def test_names_alone_count_from_where_the_masks_do(tmp_path: Path, highest: int, meant: list[str]) -> None:
    images, masks = own(tmp_path, {"a": {"": halves(highest, 0)}})
    (tmp_path / "names.txt").write_text("wall\nsky\n")
    data = open_folder(write(drafted(images, masks, tmp_path / "names.txt"), tmp_path / "set"))
    names = {0: "", **dict(zip(data.concepts.number.tolist(), data.concepts.name, strict=True))}
    assert [names[n] for n in data.read(0).maps[0, 0, [0, -1]].tolist()] == meant


def test_masks_may_be_called_like_their_image_and_a_word(tmp_path: Path) -> None:
    images, masks = own(tmp_path, {"a": {"": halves(1, 2)}, "b": {"": halves(1, 2)}})
    for path in list(masks.iterdir()):
        path.rename(path.with_name(f"{path.stem}_mask.png"))
    plan = drafted(images, masks)
    assert plan.explanation[0] == "2 images with 2 masks, by their names (masks end in _mask)"
    assert len(open_folder(write(plan, tmp_path / "set"))) == 2


def test_images_and_masks_may_lie_in_one_folder(tmp_path: Path) -> None:
    images, masks = own(tmp_path, {"a": {"": halves(1, 2)}}, masks="images")
    assert len(open_folder(write(drafted(images, masks), tmp_path / "set"))) == 1


def test_what_is_there_is_not_overwritten(tmp_path: Path) -> None:
    images, masks = own(tmp_path, {"a": {"": halves(1, 2)}})
    plan = drafted(images, masks)
    folder = write(plan, tmp_path / "set")
    (folder / "labels.csv").write_text("1,cat\n2,dog\n")
    with pytest.raises(NotReplaced, match="is a data set already"):
        write(plan, folder)
    assert (folder / "labels.csv").read_text() == "1,cat\n2,dog\n"
    write(plan, folder, force=True)
    assert len(rows_of(folder)) == 2
    for force in (False, True):
        with pytest.raises(WrongUse, match="holds other files"):
            write(plan, images, force=force)


def test_folders_that_hold_no_data_are_told_apart(tmp_path: Path) -> None:
    images, masks = own(tmp_path, {"a": {"": halves(1, 2)}})
    (tmp_path / "empty").mkdir()
    (tmp_path / "jpegs").mkdir()
    Image.fromarray(halves(1, 2)).save(tmp_path / "jpegs/a.jpg")
    (tmp_path / "others").mkdir()
    Image.fromarray(halves(1, 2)).save(tmp_path / "others/z.png")
    for first, second, what in (
        (images, tmp_path / "nowhere", "There is no folder"),
        (tmp_path / "empty", masks, "holds no image"),
        (images, tmp_path / "empty", "holds no mask"),
        (images, tmp_path / "jpegs", "holds no label map, but a.jpg"),
        (images, tmp_path / "others", "is called like an image in"),
    ):
        with pytest.raises(NDError, match=what):
            survey(first, second)


def test_a_photograph_among_the_masks_is_told(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (128, 128, 3), np.uint8)
    images, masks = own(tmp_path, {"a": {"": halves(1, 2)}, "b": {"": noise}})
    assert "colours are no label map" in drafted(images, masks).explanation[-1]


def test_many_alike_are_counted(tmp_path: Path) -> None:
    root = write_folder(tmp_path, {f"{n:02}": {"": halves(1, 9)} for n in range(12)})
    problems = check_dataset(root)
    assert len(problems) == 12
    shown = first_of_each_kind(problems)
    assert [problem.file for problem in shown] == [f"masks/{n:02}.png" for n in range(5)] + ["and 7 more"]
    assert {problem.what for problem in shown} == {"holds 9, not in labels.csv"}


def test_the_same_labels_as_brodens_tables_are_the_same(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    maps = [np.kron(rng.integers(0, 4, (4, 4)), np.ones((4, 4), int)).astype(np.uint8) for _ in range(6)]
    pixels = [rng.integers(0, 256, (32, 32, 3), np.uint8) for _ in maps]
    concepts = [Concept(1, "cat"), Concept(2, "dog"), Concept(3, "cow")]
    pictures = [
        Picture({"object": m}, name=f"{n}.png", pixels=p) for n, (m, p) in enumerate(zip(maps, pixels, strict=True))
    ]
    write_broden(tmp_path / "broden", pictures, concepts)
    own_root = write_folder(tmp_path / "mine", {str(n): {"": m} for n, m in enumerate(maps)}, "1,cat\n2,dog\n3,cow\n")
    for n, image in enumerate(pixels):
        (own_root / f"images/{n}.jpg").unlink()
        Image.fromarray(image).save(own_root / f"images/{n}.png")
    protocol = make_protocol("netdissect", grid="16")
    one, other = (
        BatchReader(open_dataset(tmp_path / name, grid=protocol.grid), protocol).read_batch(range(6))
        for name in ("broden", "mine")
    )
    assert (one.pixels[0] == other.pixels[0]).all()
    for field in vars(one.labels):
        assert (getattr(one.labels, field) == getattr(other.labels, field)).all(), field


def test_the_command_explains_and_the_data_set_is_dissected(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    maps = {f"{n:02}": {"": np.where(rng.random((32, 32)) < 0.5, 1, 2).astype(np.uint8)} for n in range(8)}
    images, masks = own(tmp_path / "pets", maps)
    for name, of_image in maps.items():  # red where the number is 1
        rgb = np.zeros((32, 32, 3), np.uint8)
        rgb[..., 0] = np.where(of_image[""] == 1, rng.integers(150, 250, (32, 32)), 0)
        (images / f"{name}.jpg").unlink()
        Image.fromarray(rgb).save(images / f"{name}.png")
    (tmp_path / "names.json").write_text(json.dumps({"1": "cat", "2": "dog"}))
    done = cli.nd("data", "init", images, masks, "--names", "names.json", folder=tmp_path)
    assert (done.returncode, done.stdout) == (0, "pets-data\n"), done.stderr
    assert "8 images with 8 masks" in done.stderr
    assert "nd dissect NETWORK --data pets-data" in done.stderr
    (tmp_path / "net.py").write_text(
        "from torch import nn\n\n\ndef network():\n"
        "    net = nn.Sequential(nn.Conv2d(3, 1, 1, bias=False))\n"
        "    net[0].weight.data[:] = 0\n    net[0].weight.data[0, 0] = 1\n    return net\n"
    )
    words = ("dissect", "net.py:network", "-l", "0", "-d", "pets-data", "-o", "out.nd.h5", "--grid", "32")
    done = cli.nd(*words, "--quantile", "0.3", "--format", "folder", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    (unit,) = cli.json_of("inspect", "0", folder=tmp_path)["units"]
    assert unit["label"] == "cat"
    assert unit["iou"] == pytest.approx(0.6, abs=0.05), "0.3 of all pixels, of the half of them that are cat"
