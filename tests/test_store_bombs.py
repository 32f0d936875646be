"""A small file cannot make a reader slow or large: it is shown in bounded time and memory, or refused in two lines."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from bomb_factory import BOMBS, baseline, bomb, claiming, packed, provenance, scans_of_a_baseline
from broden_factory import Concept, Picture, write_broden
from browsing import Visit
from cli import DISSECT, Terminal, failed, in_parallel, nd, workplace, write_inputs
from probing import Found, Prober
from store_factory import concept_table, dissection, write_small

from ndissect.engine.data.broden import Broden
from ndissect.engine.passes.loader import Loader
from ndissect.engine.passes.thumbnails import ImageTables
from ndissect.store import limits
from ndissect.store.errors import NDError, WrongUse
from ndissect.store.jpeg import check_thumbnail
from ndissect.store.limits import check_plan
from ndissect.store.live import find_runs
from ndissect.store.protocol import make_protocol
from ndissect.store.reader import Store
from ndissect.store.table2017 import read_table
from ndissect.store.writer import write_store

# Generous: what is bounded takes a fifth of it, and what is not takes minutes and gigabytes.
SECONDS, MEGABYTES = 10, 300


@pytest.fixture(scope="module")
def prober() -> Iterator[Prober]:
    with Prober() as started:
        yield started


def bounded(found: Found) -> None:
    assert not found.problem
    assert found.seconds < SECONDS
    assert found.megabytes < MEGABYTES


@pytest.mark.parametrize("what", BOMBS)
def test_a_bomb_is_refused_or_shown_in_bounded_time_and_memory(tmp_path: Path, prober: Prober, what: str) -> None:
    change, said = BOMBS[what]
    found = prober(bomb(tmp_path / "a.nd.h5", change))
    bounded(found)
    if said:
        assert any(said in message for message in found.refused), found.refused
    else:
        assert not any("too much to take in" in message or "damaged" in message for message in found.refused)


@pytest.mark.parametrize("what", ["60 million image groups", "3 million layers", "a thumbnail of 65,500 x 65,500"])
def test_commands_refuse_a_bomb_in_two_lines(tmp_path: Path, what: str) -> None:
    change, said = BOMBS[what]
    path = str(bomb(tmp_path / "a.nd.h5", change))
    commands = [["overlay", "features.0:0", "-s", path, "-o", "a.png"], ["report", "-s", path, "-o", "a.html"]]
    if "thumbnail" not in what:
        commands += [["inspect", "-s", path], ["export", "--format", "json", "-s", path], ["compare", path, path]]
        commands += [["inspect", "features.0", "-s", path], ["concepts", "-s", path]]
    assert said
    for done in in_parallel(lambda command: nd(*command, folder=tmp_path, timeout=60), commands):
        failed(done, 1, path, said)


# --- beside the store -----------------------------------------------------------------------------------------------


def test_browse_lists_bombs_that_lie_beside_its_store_at_once(tmp_path: Path) -> None:
    """Key 4 looks into every store of the folder: each takes bounded work, whatever it is."""
    store = write_small(tmp_path / "good.nd.h5")
    for i, what in enumerate(name for name in BOMBS if "300 MB" not in name):
        bomb(tmp_path / f"bomb{i}.nd.h5", BOMBS[what][0])
    os.mkfifo(tmp_path / "pipe.nd.h5")
    with Visit(store, size=(120, 60)) as visit:
        began = time.process_time()
        visit.press("4")
        assert time.process_time() - began < SECONDS
        assert visit.crumbs.endswith("stores")
        screen = "\n".join(visit.rows)
        assert "good" in screen
        assert screen.count("unreadable") > 3
        visit.press("1", "enter")
        assert "features.0" in visit.crumbs


def test_a_bad_thumbnail_is_told_in_browse_which_goes_on(tmp_path: Path) -> None:
    path = bomb(tmp_path / "a.nd.h5", BOMBS["a thumbnail of 65,500 x 65,500"][0])
    with Terminal("browse", str(path), folder=tmp_path, columns=100) as terminal:
        terminal.wait_for("features.0")
        terminal.type("\r")
        terminal.wait_for("unit")
        terminal.type("o")
        terminal.wait_for("no small JPEG")
        terminal.type("1")
        terminal.type("q")
    assert terminal.code == 0
    assert "defect" not in terminal.text


def test_completion_of_layers_and_a_run_that_is_asked_for_again_pass_bombs_by(tmp_path: Path) -> None:
    workplace(tmp_path)
    newest = bomb(tmp_path / "z.nd.h5", BOMBS["60 million image groups"][0])
    bomb(tmp_path / "y.nd.h5", BOMBS["a provenance nested 900 deep"][0])
    os.utime(newest, (time.time() + 10,) * 2)
    words = {"COMP_WORDS": "nd inspect ", "COMP_CWORD": "2", "_ND_COMPLETE": "complete_bash"}
    done = nd(folder=tmp_path, env=words, timeout=60)
    assert "Traceback" not in done.stderr
    assert done.stdout.strip() == ""
    again = nd(*DISSECT, folder=tmp_path, timeout=60)
    assert again.returncode == 0, again.stderr


def test_run_files_of_any_content_are_passed_by(tmp_path: Path) -> None:
    contents = [b"[" * 1_000_000, b'{"a":' * 100_000, b"\0" * 3_000_000, b'{"layers": ' + b"9" * 900_000 + b"}", b""]
    for i, content in enumerate(contents):
        (tmp_path / f".{i}.nd.h5.run").write_bytes(content)
    os.mkfifo(tmp_path / ".pipe.nd.h5.run")
    assert find_runs(tmp_path) == []
    done = nd("status", folder=tmp_path, timeout=60)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "content",
    [
        "[" * 900_000,
        json.dumps({"a": "x" * 200_000_000}),
        '{"PATH": {"root": "units", "depth": 1, "unit": 1e999}}',
        '{"PATH": {"unit": ' + "9" * 4000 + ', "concept": 9999999999999999999999}}',
        '{"PATH": {"layer": "\\ud800", "unit_layer": "\\udfff", "depth": 2, "unit": -5}}',
    ],
    ids=lambda text: text[:20],
)
def test_the_places_that_browse_keeps_may_hold_anything(tmp_path: Path, content: str) -> None:
    store = write_small(tmp_path / "a.nd.h5")
    kept = tmp_path / ".local" / "state" / "ndissect" / "browse.json"
    kept.parent.mkdir(parents=True)
    kept.write_text(content.replace("PATH", str(store)), encoding="utf-8")
    with Terminal("browse", str(store), folder=tmp_path, timeout=60) as terminal:
        terminal.wait_for("features.0")
        terminal.type("q")
    assert terminal.code == 0, terminal.text


# --- tables ---------------------------------------------------------------------------------------------------------

HEADER = "unit,category,label,score,object-label,object-truth,object-activation,object-intersect,object-iou\n"


@pytest.mark.parametrize("what", ["one field", "rows", "columns", "a hole", "a pipe", "a device"])
def test_a_table_that_is_too_large_is_refused(tmp_path: Path, what: str) -> None:
    path = tmp_path / "t.csv"
    row = "{},object,car,0.25,car,50,50,20,0.25\n"
    if what == "one field":
        path.write_text(HEADER + '1,object,"' + "x" * 60_000_000 + '"\n')
    elif what == "rows":
        path.write_text(HEADER + "".join(row.format(i) for i in range(1, 600_000)))
    elif what == "columns":
        kinds = [f"k{i}" for i in range(2000)]
        parts = ("label", "truth", "activation", "intersect", "iou")
        path.write_text(",".join(["unit", *(f"{k}-{part}" for k in kinds for part in parts)]) + "\n")
    elif what == "a hole":
        with path.open("wb") as f:
            f.truncate(5 << 30)
    elif what == "a pipe":
        os.mkfifo(path)
    else:
        path = Path("/dev/zero")
    began = time.process_time()
    with pytest.raises(NDError) as refused:
        read_table(path, "conv")
    assert time.process_time() - began < SECONDS
    assert str(path) in refused.value.message
    assert refused.value.hint


def test_a_series_that_is_too_large_is_refused(tmp_path: Path) -> None:
    write_inputs(tmp_path)
    with (tmp_path / "series.csv").open("wb") as f:
        f.truncate(5 << 30)
    (tmp_path / "deep.json").write_text("[" * 100_000)
    os.mkfifo(tmp_path / "pipe.csv")
    (tmp_path / "zero.csv").symlink_to("/dev/zero")
    for name in ("series.csv", "deep.json", "pipe.csv", "zero.csv"):
        failed(nd("series", name, "--data", "small", folder=tmp_path, timeout=60), 2, name)


# --- text -----------------------------------------------------------------------------------------------------------

ODD_TEXT = {
    "a lone surrogate": '{"command": "a\\ud800b", "network": {"name": "\\udc1b[31m", "spec": "\\udfff"}}',
    "a lone surrogate for a key": '{"\\ud800": 1, "versions": {"\\udbff": "\\udbff"}}',
    "NaN and infinity": '{"a": NaN, "b": [Infinity, -Infinity, 1e400], "data": {"images": 1e999, "used": NaN}}',
    "numbers beyond 64 bits": f'{{"data": {{"images": {"9" * 4000}, "used": -{"9" * 30}}}}}',
    "nested as deep as may be": f'{{"asked": {"[" * 30}{"]" * 30}}}',
    "other types everywhere": '{"command": [1], "network": "x", "data": [], "run": 3, "versions": {"a": {}}, '
    '"asked": [], "imported": {"file": 7}, "started": {}, "folder": null}',
    "drift of other types": '{"run": {"drift": [3, {"layer": []}], "shards": {}}}',
    "drift that is none": '{"run": {"drift": 7}}',
}


@pytest.mark.parametrize("what", ODD_TEXT)
def test_provenance_of_any_content_is_shown(tmp_path: Path, prober: Prober, what: str) -> None:
    found = prober(bomb(tmp_path / "a.nd.h5", lambda f: provenance(f, ODD_TEXT[what])))
    bounded(found)
    assert not found.refused


def test_an_exported_provenance_is_json_for_every_program(tmp_path: Path) -> None:
    path = bomb(
        tmp_path / "a.nd.h5", lambda f: provenance(f, '{"a\\ud800": ["x\\udfff", NaN, 1e400, 12, 0.5, "\\u00e9"]}')
    )
    done = nd("export", "--format", "json", "-s", str(path), folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["provenance"] == {
        "a\ufffd\ufffd\ufffd": ["x\ufffd\ufffd\ufffd", None, None, 12, 0.5, "é"]
    }


def test_a_provenance_of_every_depth_is_shown_or_refused_in_two_lines(tmp_path: Path) -> None:
    for depth in (20, 100, 900, 990, 2000, 100_000):
        path = bomb(tmp_path / "a.nd.h5", lambda f: provenance(f, f'{{"a": {"[" * depth}{"]" * depth}}}'))  # noqa: B023
        done = nd("report", "-s", str(path), "-o", f"{depth}.html", "--units", "0", folder=tmp_path, timeout=60)
        if depth < limits.DEPTH.most:
            assert done.returncode == 0, done.stderr
        else:
            failed(done, 1, "/provenance")


# --- thumbnails -----------------------------------------------------------------------------------------------------


def test_a_thumbnail_is_looked_at_before_it_is_decoded() -> None:
    good = baseline()
    assert check_thumbnail(good) == good
    for bad in (
        *(
            b"",
            b"\xff\xd8",
            b"\xff\xd8\xff\xd9",
            b"GIF89a",
            good[:-2],
            good[:40],
            good + good[2:],
            good[:2] + b"\xff" * 99,
        ),
        *(baseline(progressive=True), claiming(65_500, 65_500), claiming(0, 20), baseline((1025, 8))),
        *(scans_of_a_baseline(4), good[:2] + b"\xff\xfe\xff\xff" + bytes(1 << 18) + good[2:]),
    ):
        if bad == good + good[2:]:  # what comes after the end is left out
            assert check_thumbnail(bad) == good
            continue
        with pytest.raises(ValueError, match=r"\w"):
            check_thumbnail(bad)
    for cut in range(len(good)):
        with pytest.raises(ValueError, match=r"\w"):
            check_thumbnail(good[:cut])
    grey = baseline((9, 9), quality=95, subsampling=0)
    assert check_thumbnail(grey) == grey


def test_what_cameras_write_does_not_reach_the_decoder() -> None:
    good = baseline()
    more = b"".join(b"\xff" + bytes([kind]) + b"\0\x0asecret!!" for kind in (0xE1, 0xE2, 0xED, 0xFE))
    assert check_thumbnail(good[:2] + more + good[2:]) == good


def test_thumbnails_that_are_written_are_baseline_whatever_the_image_was(tmp_path: Path) -> None:
    pictures = [Picture(maps={"object": np.full((8, 8), 3, np.uint16)}) for _ in range(4)]
    folder = write_broden(tmp_path / "d", pictures, [Concept(3, "tree")], image_size=(40, 56), grid=(8, 8))
    files = sorted((folder / "images" / "made").glob("????.png"))[:4]
    for file, data in zip(
        files,
        (baseline((56, 40)), baseline((56, 40), progressive=True), baseline((56, 40), comment=b"a place"), None),
        strict=True,
    ):
        if data:
            file.write_bytes(data)
    made = ImageTables(Loader(Broden(folder), make_protocol(), 1)).table(range(4)).thumbnail
    assert [check_thumbnail(jpeg) for jpeg in made] == list(made)
    assert made[0] == baseline((56, 40))


# --- what is written ------------------------------------------------------------------------------------------------


def plan(**changes: object) -> None:
    fitting: dict[str, object] = {
        "layers": ["a"], "units": [64], "map_sizes": [(7, 7)], "concepts": concept_table(), "grid": (112, 112),
        "top": 10, "images": ["x.jpg"] * 100,
    }  # fmt: skip
    check_plan(**(fitting | changes))  # type: ignore[arg-type]


def many(count: int, length: int = 6) -> object:
    return concept_table([(i + 1, f"{i:0{length}}", "object") for i in range(count)])


def test_real_dissections_are_within_the_limits() -> None:
    plan(layers=[f"layer{i}" for i in range(53)], units=[512] * 53, map_sizes=[(112, 112)] * 53, concepts=many(1197))
    plan(concepts=many(20_000, 100), units=[2048])
    plan(units=[100_000], top=1000, images=["n01440764/x.JPEG"] * 1_000_000)
    plan(grid=(1024, 1024), map_sizes=[(1024, 1024)])
    plan(grid=(1024, 2048))
    plan(layers=[f"block{i}.mlp" for i in range(1000)], units=[64] * 1000, map_sizes=[(14, 14)] * 1000)


BEYOND = {
    "layers": {"layers": ["x"] * 1025, "units": [1] * 1025, "map_sizes": [(1, 1)] * 1025},
    "units": {"units": [300_000]},
    "concepts": {"concepts": many(65_536)},
    "top images a unit": {"top": 1001},
    "label grid": {"grid": (5000, 100)},
    "activation maps": {"map_sizes": [(3000, 3000)]},
    "the concepts": {"concepts": many(2, 2000)},
    "of the concepts": {"concepts": many(20_000, 1000)},
    "the images": {"images": ["x" * 5000]},
    "the layers": {"layers": ["x" * 2000]},
}


@pytest.mark.parametrize("what", BEYOND)
def test_a_dissection_beyond_the_limits_is_refused_before_anything_is_counted(what: str) -> None:
    with pytest.raises(NDError) as refused:
        plan(**BEYOND[what])
    assert what in refused.value.message
    assert refused.value.hint


def test_dissect_refuses_what_no_reader_would_take(tmp_path: Path) -> None:
    write_inputs(tmp_path)
    for option in (["--grid", "10000"], ["--grid", "3000x3000"], ["--top", "1001"]):
        done = nd(*DISSECT, *option, "-o", "a.nd.h5", folder=tmp_path)
        failed(done, 2, option[0])
        assert not (tmp_path / "a.nd.h5").exists()


def test_nothing_is_written_that_would_be_refused(tmp_path: Path) -> None:
    made = dissection()
    too_much = {**made.provenance, "skipped": ["x" * 1000] * 5000}
    with pytest.raises(NDError, match=r"provenance takes 5,\d+,\d+ bytes of JSON, a store holds"):
        write_store(tmp_path / "a.nd.h5", type(made)(**{**vars(made), "provenance": too_much}))
    with pytest.raises(WrongUse, match="label grid"):
        write_store(tmp_path / "a.nd.h5", type(made)(**{**vars(made), "grid": (5000, 5000)}))
    assert list(tmp_path.iterdir()) == []


def test_packed_tables_are_read_as_long_as_they_are_small(tmp_path: Path) -> None:
    path = bomb(
        tmp_path / "a.nd.h5", lambda f: [packed(f, f"layers/features.0/{n}", (9,), "i8") for n in ("nan", "inf")]
    )
    with Store(path) as store:
        assert store.layer("features.0").statistics.nan.sum() == 0


def test_the_format_states_every_limit() -> None:
    text = (Path(__file__).parents[1] / "store" / "FORMAT.md").read_text(encoding="utf-8")
    section = text.split("## Limits\n")[1].split("\n## ")[0]
    of_programs = {"LAYER", "TABLE"}  # of a caller's memory, and of tables that are imported
    stated = {name: limit for name, limit in vars(limits).items() if isinstance(limit, limits.Limit)}
    missing = [name for name, limit in stated.items() if f"{limit.most:,}" not in section and name not in of_programs]
    assert not missing
