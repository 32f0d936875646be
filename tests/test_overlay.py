"""Overlays show exactly the mask that was counted: bright inside, dark outside, a line along the edge."""

from __future__ import annotations

import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from ndissect.store.errors import NDError
from ndissect.tui.pictures import overlay
from ndissect.tui.pictures.lettering import shorten
from ndissect.tui.pictures.overlay import Panel, contact_sheet, draw_panel, enlarge, save_png

GREY = 200
DARK = 70  # 0.35 x 200


def grey(height: int, width: int) -> np.ndarray:
    return np.full((height, width, 3), GREY, np.uint8)


def disc(size: int = 112, radius: float = 30.0) -> np.ndarray:
    y, x = np.mgrid[:size, :size]
    return (y - size / 2) ** 2 + (x - size / 3) ** 2 < radius**2


def cell_under(pixel: int, pixels: int, cells: int) -> int:
    """The cell that holds the centre of a pixel, in exact arithmetic."""
    return int((pixel + Fraction(1, 2)) * cells / pixels)


def nearest(mask: np.ndarray, height: int, width: int) -> np.ndarray:
    return np.array(
        [
            [mask[cell_under(y, height, mask.shape[0]), cell_under(x, width, mask.shape[1])] for x in range(width)]
            for y in range(height)
        ]
    )


masks = hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=20).flatmap(lambda s: hnp.arrays(np.bool_, s))


@settings(max_examples=60, deadline=None)
@given(mask=masks, height=st.integers(1, 40), width=st.integers(1, 40))
def test_a_mask_is_enlarged_by_the_cell_under_each_pixels_centre(mask: np.ndarray, height: int, width: int) -> None:
    assert np.array_equal(enlarge(mask, height, width), nearest(mask, height, width))


@settings(max_examples=60, deadline=None)
@given(mask=masks, truth=masks, shape=st.tuples(st.integers(1, 30), st.integers(1, 30)), side=st.integers(8, 60))
def test_the_bright_pixels_are_the_mask(mask: np.ndarray, truth: np.ndarray, shape: tuple[int, int], side: int) -> None:
    drawn = np.asarray(draw_panel(Panel(grey(*shape), mask, truth, ""), side))
    height, width = drawn.shape[0], (drawn.shape[1] - overlay.PAIR_GAP) // 2
    for picture, shown in ((drawn[:, :width], mask), (drawn[:, -width:], truth)):
        assert np.array_equal((picture == GREY).all(2), nearest(shown, height, width))


def test_112_cells_on_160_pixels() -> None:
    mask = np.random.default_rng(0).random((112, 112)) < 0.3
    drawn = np.asarray(draw_panel(Panel(grey(224, 224), mask, None, ""), 160))
    assert drawn.shape == (160, 160, 3)
    assert np.array_equal((drawn == GREY).all(2), nearest(mask, 160, 160))


def neighbours(mask: np.ndarray) -> np.ndarray:
    """The pixels outside of ``mask`` that touch a pixel of it, up, down, left or right."""
    out = np.zeros_like(mask)
    for y, x in np.argwhere(~mask):
        around = [(y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)]
        out[y, x] = any(0 <= v < mask.shape[0] and 0 <= u < mask.shape[1] and mask[v, u] for v, u in around)
    return out


def test_the_line_runs_along_the_whole_edge_of_the_mask_and_a_dark_one_along_it() -> None:
    mask = disc(60, 14)
    drawn = np.asarray(draw_panel(Panel(grey(60, 60), mask, None, ""), 60))
    line, hair = (drawn == overlay.MASK_LINE).all(2), (drawn == overlay.HAIRLINE).all(2)
    assert np.array_equal(line, neighbours(mask))
    assert np.array_equal(hair, neighbours(mask | line))
    rest = ~(mask | line | hair)
    assert (drawn[rest] == DARK).all()


def test_the_edge_of_the_image_is_not_an_edge_of_the_mask() -> None:
    mask = np.zeros((40, 40), bool)
    mask[:, :20] = True
    drawn = np.asarray(draw_panel(Panel(grey(40, 40), mask, mask, ""), 40))
    assert ((drawn[:, :40] == overlay.MASK_LINE).all(2).nonzero()[1] == 20).all()
    assert ((drawn[:, 44:] == overlay.TRUTH_LINE).all(2).nonzero()[1] == 20).all()


@pytest.mark.parametrize(("everywhere", "value"), [(False, DARK), (True, GREY)])
def test_an_empty_mask_is_all_dark_and_a_full_one_all_bright_without_a_line(everywhere: bool, value: int) -> None:
    drawn = np.asarray(draw_panel(Panel(grey(30, 30), np.full((7, 7), everywhere), None, ""), 30))
    assert (drawn == value).all()


def test_the_truth_is_dashed_with_dashes_of_one_length() -> None:
    mask = np.zeros((60, 60), bool)
    mask[:, :30] = True
    drawn = np.asarray(draw_panel(Panel(grey(60, 60), mask, mask, ""), 60))
    on = (drawn[:, 60 + overlay.PAIR_GAP :] == overlay.TRUTH_LINE).all(2)[:, 30]
    starts = np.flatnonzero(np.diff(on.astype(int))) + 1
    assert np.array_equal(starts, np.arange(overlay.DASH, 60, overlay.DASH))
    assert (drawn[:, 30] == overlay.MASK_LINE).all()


def test_every_line_of_the_truth_has_dashes_and_spaces() -> None:
    truth = disc(100, 12)
    truth[70:90, 60:95] = True
    drawn = np.asarray(draw_panel(Panel(grey(100, 100), truth, truth, ""), 100))
    line = (drawn[:, 104:] == overlay.TRUTH_LINE).all(2)
    for there in (np.s_[:65], np.s_[65:]):
        edge = neighbours(truth)[there]
        assert not line[there][~edge].any()
        assert 0.3 < line[there].sum() / edge.sum() < 0.7


@pytest.mark.parametrize(
    ("shape", "size"), [((224, 224), (160, 160)), ((120, 240), (160, 80)), ((300, 100), (53, 160))]
)
def test_the_image_keeps_its_proportions(shape: tuple[int, int], size: tuple[int, int]) -> None:
    assert draw_panel(Panel(grey(*shape), disc(), None, ""), 160).size == size


@pytest.mark.parametrize(
    "panel",
    [
        Panel(np.zeros((8, 8), np.uint8), disc(), None, "cat.jpg"),
        Panel(np.zeros((8, 8, 3), np.float32), disc(), None, "cat.jpg"),
        Panel(grey(8, 8), np.zeros((0, 0), bool), None, "cat.jpg"),
        Panel(grey(8, 8), disc(), np.zeros((4, 4), np.uint8), "cat.jpg"),
    ],
)
def test_arrays_that_are_no_image_or_no_mask_are_an_error_that_names_the_panel(panel: Panel) -> None:
    with pytest.raises(NDError, match=r"cat\.jpg"):
        draw_panel(panel, 160)


def ink(picture: Image.Image) -> np.ndarray:
    """Where the sheet is not paper."""
    return (np.asarray(picture) != 255).any(2)


def test_a_sheet_shows_each_panel_once_in_reading_order() -> None:
    colours = [(250, 10 * i, 5) for i in range(7)]
    everywhere = np.ones((4, 4), bool)
    panels = [Panel(np.full((50, 50, 3), c, np.uint8), everywhere, None, f"{i}") for i, c in enumerate(colours)]
    sheet = np.asarray(contact_sheet(panels, "layer4 unit 3", columns=3, side=50))
    corners = []
    for colour in colours:
        y, x = (sheet == colour).all(2).nonzero()
        assert len(y) == 50 * 50
        corners.append((int(y.min()), int(x.min())))
    assert corners == sorted(corners)
    assert len({y for y, _ in corners}) == 3


def test_no_panels_give_a_sheet_that_says_so() -> None:
    bare = contact_sheet([], "layer4 unit 3")
    text = ink(bare)
    assert bare.width >= 480
    # two lines of text: the title, and that there is nothing to show
    assert np.count_nonzero(np.diff(text.any(1).astype(int)) == 1) == 2


def test_a_long_caption_stays_below_its_own_panel() -> None:
    everywhere = np.zeros((4, 4), bool)
    name = "street/" + "very_long_name_" * 20 + "0042.jpg"
    sheet = contact_sheet([Panel(grey(90, 90), everywhere, None, name)] * 5, "", columns=5, side=90)
    gaps = np.arange(sheet.width - 2 * overlay.MARGIN) % (90 + overlay.GAP) >= 90
    inside = ink(sheet)[:, overlay.MARGIN : -overlay.MARGIN]
    assert not inside[:, gaps].any()
    assert inside[:, ~gaps].any()


@pytest.mark.parametrize("width", [20, 80, 200, 2000])
def test_a_name_is_cut_in_the_middle(width: int) -> None:
    name = "31.2  street/some_camera/with_a_long_path/frame_000123.jpg"
    short = shorten(name, 12, width)
    if width == 2000:
        assert short == name
    else:
        start, end = short.split("…")
        assert name.startswith(start)
        assert name.endswith(end)
    assert shorten("cat.jpg", 12, 100) == "cat.jpg"


@settings(max_examples=40, deadline=None)
@given(st.text(st.characters(), max_size=60), st.text(max_size=60))
def test_names_in_any_script_can_be_drawn(name: str, title: str) -> None:
    contact_sheet([Panel(grey(20, 20), np.ones((2, 2), bool), None, name)], title, name, side=40)


@pytest.mark.parametrize(
    "name", ["café/Łódź.jpg", "街道/写真.jpg", "улица.jpg", "شارع.jpg", "🐈.jpg", "a\udc80\0\n\x1b[31mb.jpg"]
)
def test_a_name_that_pillows_font_lacks_still_leaves_ink(name: str) -> None:
    blank = np.zeros((2, 2), bool)
    sheets = [contact_sheet([Panel(grey(20, 20), blank, None, caption)], "", side=160) for caption in (name, "")]
    assert ink(sheets[0]).sum() > ink(sheets[1]).sum()


def test_a_long_title_wraps_and_the_sheet_keeps_its_width() -> None:
    panels = [Panel(grey(20, 20), np.ones((2, 2), bool), None, "")]
    one = contact_sheet(panels, "layer4 unit 3")
    many = contact_sheet(panels, "layer4 unit 3 " * 20 + "x" * 400)
    assert many.width == one.width
    assert many.height > one.height
    assert not ink(many)[:, -overlay.MARGIN :].any()


def test_a_picture_carries_its_metadata_in_any_script(tmp_path: Path) -> None:
    target = tmp_path / "unit 3.png"
    metadata = {"nd:layer": "layer4", "nd:concept": "Straße 街道", "nd:store": "bad\udc80\0name"}
    save_png(Image.new("RGB", (4, 4)), target, metadata)
    with Image.open(target) as read:
        assert read.text["nd:layer"] == "layer4"
        assert read.text["nd:concept"] == "Straße 街道"
        assert read.text["nd:store"] == "bad\\udc80 name"
    assert [p.name for p in tmp_path.iterdir()] == ["unit 3.png"]


def test_a_missing_folder_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(NDError, match=r"unit\.png") as caught:
        save_png(Image.new("RGB", (4, 4)), tmp_path / "absent" / "unit.png", {})
    assert "absent" in caught.value.hint


def test_a_folder_in_the_place_of_the_picture_is_a_clear_error(tmp_path: Path) -> None:
    for place in (tmp_path, Path()):
        with pytest.raises(NDError, match="folder"):
            save_png(Image.new("RGB", (4, 4)), place, {})


def test_a_read_only_folder_is_a_clear_error(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    try:
        (tmp_path / "try").touch()
    except PermissionError:
        with pytest.raises(NDError, match="Permission denied"):
            save_png(Image.new("RGB", (4, 4)), tmp_path / "unit.png", {})
    else:
        pytest.skip("this user may write to read-only folders")
    finally:
        tmp_path.chmod(0o700)


def test_a_disk_that_fills_up_leaves_the_old_picture_and_nothing_else(tmp_path: Path) -> None:
    """A limit on the size of files stands for the full disk: the write breaks off in the middle of the picture."""
    target = tmp_path / "unit.png"
    save_png(Image.new("RGB", (4, 4)), target, {"nd:unit": "old"})
    before = target.read_bytes()
    script = """
import resource, sys
from pathlib import Path
import numpy as np
from PIL import Image
from ndissect.store.errors import NDError
from ndissect.tui.pictures.overlay import save_png
noise = np.random.default_rng(0).integers(0, 255, (200, 200, 3), np.uint8)
resource.setrlimit(resource.RLIMIT_FSIZE, (10000, 10000))
try:
    save_png(Image.fromarray(noise), Path(sys.argv[1]), {})
except NDError as error:
    print(error)
"""
    run = subprocess.run([sys.executable, "-c", script, target], capture_output=True, text=True, cwd=tmp_path)
    assert "Cannot write the picture" in run.stdout, run.stderr
    assert target.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["unit.png"]


def test_drawing_needs_no_torch(tmp_path: Path) -> None:
    script = "import sys, ndissect.tui.pictures.overlay, ndissect.tui.pictures.viewer, ndissect.tui.cli.doctor_checks\n"
    script += "print('torch' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=tmp_path)
    assert run.stdout.strip() == "False", run.stderr
