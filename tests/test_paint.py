"""``nd paint``: what edits in cells of a layer's map do to a generator's picture, against plain PyTorch."""

from __future__ import annotations

import base64
import io
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import cli
import numpy as np
import numpy.typing as npt
import planted_generator as planted
import pytest
import torch
from PIL import Image

from ndissect.engine.experiments.edits import Edit, EditList, read_edits, write_edits
from ndissect.engine.experiments.generated import GeneratorRequest
from ndissect.engine.experiments.paint import Painter, compared, open_painter, squares
from ndissect.engine.experiments.picture_files import png_of, sheet
from ndissect.engine.experiments.regions import rectangle, region_cells
from ndissect.engine.machine.console import Console
from ndissect.engine.networks.latents import NormalLatents
from ndissect.engine.run.options import Options
from ndissect.engine.run.to_store import dissect_to_store
from ndissect.store.errors import WrongUse
from ndissect.tui.cli.edit_words import TypedEdit, typed_edits

HERE = Path(__file__).parent
CELLS, SCALE, SAMPLES = planted.CELLS, planted.SCALE, 24
COLORS = {
    name: (255 * color).to(torch.uint8).numpy() for name, color in zip(planted.CONCEPTS, planted.COLORS, strict=True)
}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of the planted generator."""
    path = tmp_path_factory.mktemp("paint") / "planted.nd.h5"
    options = Options(
        network=f"{HERE / 'planted_generator.py'}:generator",
        generator=True,
        labeller=f"{HERE / 'planted_generator.py'}:labeller",
        samples=SAMPLES,
        quantile="0.6",
        layers=("layer",),
    )
    dissect_to_store(options, Console(), output=path)
    return path


@pytest.fixture(scope="module")
def painter(store: Path) -> Iterator[Painter]:
    """A painter whose concepts are drawn by one unit each, as they were planted."""
    with open_painter(GeneratorRequest(store), Console(), units=1) as painter:
        yield painter


def plain(number: int, units: dict[int, float] | None = None, cells: npt.NDArray[np.bool_] | None = None) -> np.ndarray:
    """(H, W, 3) uint8: the picture of a sample by the network itself; ``units`` are set in ``cells``."""
    network = planted.generator()
    z = torch.from_numpy(NormalLatents((16,), 0).of([number]))

    def edit(module: torch.nn.Module, given: object, maps: torch.Tensor) -> torch.Tensor:
        maps = maps.clone()
        for unit, value in (units or {}).items():
            maps[:, unit][:, torch.from_numpy(cells)] = value
        return maps

    hook = network.layer.register_forward_hook(edit)
    picture = network(z)[0]
    hook.remove()
    return (255 * picture).round().to(torch.uint8).permute(1, 2, 0).numpy()


def cells_of(region: tuple[int, int, int, int]) -> npt.NDArray[np.bool_]:
    cells = np.zeros((CELLS, CELLS), bool)
    cells[region[0] : region[2] + 1, region[1] : region[3] + 1] = True
    return cells


def enlarged(cells: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    return cells.repeat(SCALE, 0).repeat(SCALE, 1)


def test_an_added_tree_has_its_colour_in_exactly_the_cells(painter: Painter) -> None:
    region = (2, 3, 4, 6)
    inside = enlarged(cells_of(region))
    for number in range(6):
        before = painter.sample(number)
        assert (before == plain(number)).all()
        painted = painter.paint([Edit("tree", "add", rectangle(*region))])
        assert (painted.picture[inside] == COLORS["tree"]).all()
        assert (painted.picture[~inside] == before[~inside]).all()
        assert (painted.picture == plain(number, {2: 1.0}, cells_of(region))).all()
        trees = (before == COLORS["tree"]).all(2)
        assert painted.changed_inside == (inside & ~trees).sum()
        assert (painted.pixels_inside, painted.pixels_outside) == (inside.sum(), (~inside).sum())
        assert (painted.changed_outside, painted.largest_outside) == (0, 0)
        assert [(c.concept, c.before, c.after) for c in painted.concepts] == [
            ("tree", trees.sum(), (trees | inside).sum())
        ]


def test_a_removed_concept_is_gone_in_the_cells_and_stays_elsewhere(painter: Painter) -> None:
    for number in range(6):
        before = painter.sample(number)
        painted = painter.paint([Edit("sky", "remove", rectangle(0, 0, 7, 3))])
        left = enlarged(cells_of((0, 0, 7, 3)))
        sky = (before == COLORS["sky"]).all(2)
        assert (painted.picture[left & sky] == 0).all()
        assert (painted.picture[~left] == before[~left]).all()
        assert painted.concepts[0].before - painted.concepts[0].after == (left & sky).sum() > 0


def test_edits_are_made_in_their_order(painter: Painter) -> None:
    painter.sample(3)
    cell = rectangle(1, 6, 1, 6)
    add, remove = Edit("tree", "add", cell), Edit("tree", "remove", cell)
    square = enlarged(cells_of((1, 6, 1, 6)))
    assert (painter.paint([remove, add]).picture[square] == COLORS["tree"]).all()
    assert not (painter.paint([add, remove]).picture[square] == COLORS["tree"]).all(1).any()
    both = painter.paint([add, Edit("sky", "remove", rectangle(0, 0, 0, 0)), add])
    assert [c.concept for c in both.concepts] == ["tree", "sky"]


def test_no_edits_give_the_sample_itself(painter: Painter) -> None:
    before = painter.sample(4)
    painted = painter.paint([])
    assert (painted.picture == before).all()
    assert (painted.changed_inside, painted.pixels_inside, painted.changed_outside) == (0, 0, 0)


def test_a_strength_goes_part_of_the_way(painter: Painter) -> None:
    # A tree shows where its unit is above 0.5, and its high value is 1.
    before = painter.sample(1)
    cell, square = rectangle(0, 0, 0, 0), enlarged(cells_of((0, 0, 0, 0)))
    assert (painter.paint([Edit("tree", "add", cell, 0.4)]).picture == before).all()
    assert (painter.paint([Edit("tree", "add", cell, 0.6)]).picture[square] == COLORS["tree"]).all()
    twice = painter.paint([Edit("tree", "add", cell, 0.4), Edit("tree", "add", cell, 0.4)])
    assert (twice.picture[square] == COLORS["tree"]).all()


def test_what_changes_outside_of_the_cells_is_counted(painter: Painter) -> None:
    before = painter.sample(0)
    painted = painter.paint([Edit("tree", "add", ((0, 0),)), Edit("tree", "add", ((7, 0),))])
    after = painted.picture.astype(int)
    inside = squares(cells_of((0, 0, 0, 0)), before.shape[:2])
    told = compared(before, painted.picture, inside)
    changed = (after != before).any(2)
    assert told.changed_outside == (changed & ~inside).sum() > 0
    assert told.largest_outside == np.abs(after - before)[~inside].max()


def test_the_squares_of_cells_cover_every_pixel_that_they_touch() -> None:
    cells = np.zeros((3, 3), bool)
    cells[1, 1] = True
    assert np.argwhere(squares(cells, (8, 10))).min(0).tolist() == [2, 3]
    assert np.argwhere(squares(cells, (8, 10))).max(0).tolist() == [5, 6]


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (Edit("tre", "add", ((0, 0),)), "tree"),
        (Edit("tree", "add", ((8, 0),)), "8 x 8 cells"),
        (Edit("tree", "remove", ((0, -1),)), "8 x 8 cells"),
    ],
)
def test_an_edit_that_cannot_be_made_is_refused(painter: Painter, edit: Edit, said: str) -> None:
    painter.sample(0)
    with pytest.raises(WrongUse, match=said):
        painter.paint([edit])
    with pytest.raises(WrongUse, match="0 to 23"):
        painter.sample(SAMPLES)


def test_edits_are_read_as_they_were_written(tmp_path: Path) -> None:
    edits = EditList((Edit("tree", "add", ((1, 2), (3, 4)), 0.5), Edit("sky", "remove", ((0, 0),))), 17, "layer4", 20)
    write_edits(tmp_path / "edits.json", edits)
    assert read_edits(tmp_path / "edits.json") == edits


@pytest.mark.parametrize(
    "text",
    [
        "",
        "3",
        '{"edits": 3}',
        '{"edits": [3]}',
        '{"edits": [{"concept": "tree", "action": "eat", "cells": [[0, 0]]}]}',
        '{"edits": [{"concept": "tree", "action": "add", "cells": []}]}',
        '{"edits": [{"concept": "tree", "action": "add", "cells": [[0, 0.5]]}]}',
        '{"edits": [{"concept": "tree", "action": "add", "cells": [[0, 0]], "strength": 0}]}',
        '{"edits": [{"concept": "tree", "action": "add", "cells": [[0, 0]], "strength": NaN}]}',
    ],
)
def test_a_file_that_holds_no_edits_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "edits.json").write_text(text)
    with pytest.raises(WrongUse):
        read_edits(tmp_path / "edits.json")


def test_a_region_is_cells_or_a_mask_of_any_size(tmp_path: Path) -> None:
    assert region_cells("1,2,2,3", (4, 5), "x") == ((1, 2), (1, 3), (2, 2), (2, 3))
    assert len(region_cells("all", (4, 5), "x")) == 20
    mask = np.zeros((40, 25, 3), np.uint8)
    mask[10:20, 5:15] = 255  # row 1, columns 1 and 2
    mask[30:40, 20:22] = 255  # less than half of a cell
    Image.fromarray(mask).save(tmp_path / "mask.png")
    assert region_cells(str(tmp_path / "mask.png"), (4, 5), "x") == ((1, 1), (1, 2))
    Image.fromarray(mask * 0).save(tmp_path / "black.png")
    with pytest.raises(WrongUse, match="white in none of the map's 4 x 5 cells"):
        region_cells(str(tmp_path / "black.png"), (4, 5), "x")
    for text, said in (("0,0,4,4", "4 x 5 cells"), ("2,0,1,0", "no region"), ("1,2", "no region"), ("x.png", "mask")):
        with pytest.raises(WrongUse, match=said):
            region_cells(text, (4, 5), "x")


def test_typed_edits_keep_their_order() -> None:
    words = "s.nd.h5 --add tree --region 0,0,1,1 --remove=sky --strength 0.5 --region all --add door --region=m.png"
    assert typed_edits(words.split()) == [
        TypedEdit("tree", "add", "0,0,1,1"),
        TypedEdit("sky", "remove", "all", 0.5),
        TypedEdit("door", "add", "m.png"),
    ]
    for wrong in ("--region all --add tree", "--add tree", "--add a --region all --region all", "--add a --strength x"):
        with pytest.raises(WrongUse):
            typed_edits(wrong.split())


def test_the_command_writes_the_picture_that_its_own_edits_make_again(store: Path, painter: Painter) -> None:
    folder = store.parent
    words = ["paint", f"{store.name}:layer", "--sample", "5", "--units", "1", "--remove", "sky", "--region", "all"]
    words += ["--add", "tree", "--region", "0,0,2,2"]
    told = cli.json_of(*words, "-o", "a.png", folder=folder)
    assert (told["changed_outside"], told["path"], told["layer"]) == (0, "a.png", "layer")
    painter.sample(5)
    edits = [Edit("sky", "remove", rectangle(0, 0, 7, 7)), Edit("tree", "add", rectangle(0, 0, 2, 2))]
    assert (folder / "a.png").read_bytes() == png_of(painter.paint(edits).picture)
    (folder / "edits.json").write_text(json.dumps(told))
    done = cli.nd("paint", store.name, "--edits", "edits.json", "-o", "b.png", "--before", folder=folder)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0].split("\t") == ["concept", "before", "after", "change"]
    both = np.asarray(Image.open(folder / "b.png"))
    assert (both == sheet(np.stack([plain(5), painter.paint(edits).picture]), 2)).all()


def test_what_cannot_be_painted_is_said_in_two_lines(store: Path) -> None:
    folder = store.parent
    (folder / "kept.png").write_text("mine")
    edit = ("--add", "tree", "--region", "0,0,9,9")
    for words, said in (
        ((*edit, "-o", "kept.png"), "exists"),
        ((), "needs a terminal"),
        (("-o", "new.png"), "nothing to paint"),
    ):
        cli.failed(cli.nd("paint", store.name, *words, folder=folder), 2, said)
    done = cli.nd("paint", store.name, *edit, "-o", "new.png", folder=folder)
    lines = [line for line in done.stderr.splitlines() if not line.startswith("note: ")]
    assert done.returncode == 2
    cli.two_lines("\n".join(lines), "8 x 8 cells")
    assert (folder / "kept.png").read_text() == "mine"
    assert not (folder / "new.png").exists()


def test_a_process_answers_line_by_line(store: Path, painter: Painter) -> None:
    folder = store.parent
    edit = Edit("tree", "add", rectangle(3, 3, 4, 4))
    asked = [
        {"do": "paint", "edits": []},
        {"do": "sample", "number": 7},
        {"do": "paint", "edits": [edit.to_json()], "label": False},
        {"do": "paint", "edits": [edit.to_json()]},
        {"do": "save", "path": "saved.png"},
        {"do": "save", "path": "saved.png"},
        {"do": "paint", "edits": [Edit("tree", "add", ((9, 9),)).to_json()]},
        {"do": "dance"},
        {"do": "quit"},
        {"do": "sample", "number": 1},
    ]
    done = subprocess.run(
        [str(cli.ND), "paint", store.name, "--units", "1", "--serve"],
        input="".join(json.dumps(command) + "\n" for command in asked),
        cwd=folder,
        env=cli.environment(folder),
        capture_output=True,
        encoding="utf-8",
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    ready, early, sample, quick, painted, saved, again, outside, unknown, end = map(
        json.loads, done.stdout.splitlines()
    )
    assert (ready["ready"], ready["map_size"], ready["samples"], ready["units"]) == (True, [8, 8], SAMPLES, 1)
    assert ready["concepts"] == list(painter.concepts)
    assert "no sample" in early["error"]
    assert (picture_in(sample) == plain(7)).all()
    expected = plain(7, {2: 1.0}, cells_of((3, 3, 4, 4)))
    assert (picture_in(quick) == expected).all()
    assert quick["concepts"] == []
    assert (picture_in(painted) == expected).all()
    assert painted["concepts"][0]["after"] - painted["concepts"][0]["before"] == painted["changed_inside"] == 64
    assert saved == {"saved": "saved.png", "edits": "saved.json"}
    assert (np.asarray(Image.open(folder / "saved.png")) == expected).all()
    assert read_edits(folder / "saved.json") == EditList((edit,), 7, "layer", 1)
    assert "exists" in again["error"]
    assert "8 x 8 cells" in outside["error"]
    assert "sample, paint, save, quit" in unknown["hint"]
    assert end == {"quit": True}


def picture_in(answer: dict[str, str]) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(answer["picture"]))))
