"""``nd overlay``: a unit's top images with its masks as a PNG, from the store alone, and shown if asked."""

from __future__ import annotations

import shutil
from pathlib import Path

import cli
import numpy as np
import pytest
from PIL import Image

SIDE = 160  # pixels of a panel's edge
GREEN = 1


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with nothing but the store: overlays need neither data set nor network."""
    made = cli.workplace(tmp_path / "made")
    folder = tmp_path / "copied"
    folder.mkdir()
    shutil.copy(made / "net-small.nd.h5", folder)
    shutil.rmtree(made)
    return folder


def panels(path: Path) -> list[np.ndarray]:
    """The panels of a sheet of one image, (160, 160, 3) each: what is drawn below the titles."""
    with Image.open(path) as picture:
        assert picture.format == "PNG"
        sheet = np.asarray(picture.convert("RGB")).astype(int)
    left = 24
    drawn = (sheet[:, left : left + SIDE].sum(2) < 760).all(1)  # the paper is white, and between letters it shows
    top = int(drawn.argmax())
    found = [sheet[top : top + SIDE, left : left + SIDE]]
    if sheet[top + SIDE // 2, left + SIDE + 4 : left + 2 * SIDE].sum(1).min() < 300:
        found.append(sheet[top : top + SIDE, left + SIDE + 4 : left + 2 * SIDE + 4])
    return found


def shown_masks(place: Path, unit: str) -> np.ndarray:
    """(3, 160, 160) bool: where the unit's top image holds tree, wheel and red."""
    name = cli.json_of("inspect", unit, folder=place)["top_images"][0]["image"]
    picture = cli.pictures()[int(Path(name).stem)].pixels
    return np.moveaxis(picture > 100, 2, 0).repeat(5, 1).repeat(5, 2)


def shrunk(mask: np.ndarray, by: int) -> np.ndarray:
    """The mask without what lies within ``by`` pixels of its edge."""
    inner = mask.copy()
    for axis in (0, 1):
        for shift in range(-by, by + 1):
            inner &= np.roll(mask, shift, axis)
    return inner


def test_the_picture_keeps_its_brightness_in_the_mask_and_is_darkened_outside(place: Path) -> None:
    done = cli.nd("overlay", "units:1", "-n", "1", folder=place)
    assert (done.returncode, done.stdout, done.stderr) == (0, "units-1.png\n", "")
    (panel,) = panels(place / "units-1.png")
    tree, wheel, red = shown_masks(place, "units:1")
    assert (panel[shrunk(wheel, 6), GREEN] > 120).all()
    outside = shrunk(~wheel, 8)
    assert panel[outside, GREEN].max() < 60
    for other, channel in ((tree, 0), (red, 2)):
        elsewhere = shrunk(other, 6) & outside
        if elsewhere.any():
            assert panel[elsewhere, channel].max() < 100, "200 darkened to about a third"
            assert panel[elsewhere, channel].min() > 40


def test_the_truth_beside_it_is_of_the_label_or_of_another_concept(place: Path) -> None:
    assert cli.nd("overlay", "units:1", "-n", "1", "--truth", folder=place).returncode == 0
    mask, truth = panels(place / "units-1.png")
    tree, wheel, _ = shown_masks(place, "units:1")
    assert (truth[shrunk(wheel, 6), GREEN] > 120).all()
    assert np.abs(mask - truth)[shrunk(~wheel, 8)].max() < 30

    done = cli.nd("overlay", "units:1", "-n", "1", "--concept", "tree", "-o", "tree.png", folder=place)
    assert (done.returncode, done.stdout) == (0, "tree.png\n")
    mask, truth = panels(place / "tree.png")
    assert (mask[shrunk(wheel, 6), GREEN] > 120).all()
    assert (truth[shrunk(tree, 6), 0] > 120).all()
    assert truth[shrunk(wheel & ~tree, 8), GREEN].max(initial=0) < 100


def test_all_top_images_as_json_and_for_a_dead_unit(place: Path) -> None:
    found = cli.json_of("overlay", "deep.pool:2", folder=place)
    assert (found["path"], found["layer"], found["unit"]) == ("deep.pool-2.png", "deep.pool", 2)
    assert "red" in found["title"]
    with Image.open(place / "deep.pool-2.png") as ten, Image.open(place / "deep.pool-2.png") as again:
        assert ten.size == again.size
        assert ten.height > 2 * SIDE
        assert ten.text["Title"] == found["title"]
    assert cli.nd("overlay", "units:3", "-o", "dead.png", folder=place).returncode == 0
    cli.failed(cli.nd("overlay", "units:3", "--truth", folder=place), 2, "units:3 has no label", "--concept")


def test_open_hands_the_picture_to_the_viewer(place: Path) -> None:
    viewer = place / "viewer"
    viewer.write_text('#!/bin/sh\nprintf "%s\\n" "$@" > seen\n')
    viewer.chmod(0o755)
    done = cli.nd("overlay", "units:0", "--open", folder=place, env={"ND_VIEWER": f"{viewer} --flag"})
    assert done.returncode == 0, done.stderr
    assert (place / "seen").read_text().splitlines() == ["--flag", str(place / "units-0.png")]
    assert "viewer" in done.stderr
    broken = cli.nd("overlay", "units:0", "--open", folder=place, env={"ND_VIEWER": "no-such-viewer"})
    assert broken.returncode == 1
    cli.two_lines(broken.stderr, "no-such-viewer", "ND_VIEWER")


def test_a_picture_that_was_named_is_replaced_only_if_asked(place: Path) -> None:
    mine = place / "mine.png"
    mine.write_bytes(b"a picture of my own")
    cli.failed(cli.nd("overlay", "units:0", "-o", "mine.png", folder=place), 2, "mine.png exists", "--force")
    assert mine.read_bytes() == b"a picture of my own"
    assert cli.nd("overlay", "units:0", "-o", "mine.png", "--force", folder=place).returncode == 0
    with Image.open(mine) as picture:
        picture.load()
    assert cli.nd("overlay", "units:0", folder=place).returncode == 0
    assert cli.nd("overlay", "units:0", "-n", "2", folder=place).returncode == 0, "the default one is drawn anew"


def test_what_cannot_be_drawn_is_said(place: Path) -> None:
    cli.failed(cli.nd("overlay", "units", folder=place), 2, "'units' names no unit", "LAYER:UNIT")
    cli.failed(cli.nd("overlay", "units:9", folder=place), 2, "units has no unit 9", "0 to 3")
    cli.failed(cli.nd("overlay", "unit:0", folder=place), 2, "no layer 'unit'", "units")
    cli.failed(cli.nd("overlay", "units:0", "--concept", "e", folder=place), 2, "--concept 'e' matches")
    cli.failed(cli.nd("overlay", "units:0", "--concept", "trea", folder=place), 2, "no concept matches", "tree")
    cli.failed(cli.nd("overlay", "units:0", "-o", "gone/x.png", folder=place), 1, "gone/x.png", "Create the folder")
    assert cli.nd("export", "units", "-o", "t.csv", folder=place).returncode == 0
    assert cli.nd("import", "t.csv", folder=place).returncode == 0
    done = cli.nd("overlay", "t:0", "-s", "t.nd.h5", folder=place)
    cli.failed(done, 1, "t.nd.h5 holds no top images", "imported table")
    assert cli.files_in(place) == {"net-small.nd.h5", "t.csv", "t.nd.h5"}
