"""The terminal UI by keyboard over a store that tells what units do to classes, and units ablated from within it."""

from __future__ import annotations

import csv
import importlib.util
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from unittest import mock

import pytest
from browsing import Visit, words
from effects_factory import NAMES, Scene, effects_of
from small_store import number
from store_factory import dissection, write_small

from ndissect.store.reader import Store
from ndissect.store.writer import write_store
from ndissect.tui.app import background
from ndissect.tui.app.ablations import ablation_words
from ndissect.tui.app.at_hand import code_named, missing
from ndissect.tui.app.start import bookmark_named
from ndissect.tui.app.state import Bookmark

LAYER = "layer4"
UNITS = 12
SCENE = Scene(UNITS)
TOGETHER = (1, 2, 5)
LAYERS = {"early": (4, (4, 5)), LAYER: (UNITS, (3, 3))}
MADE = dissection(layers=LAYERS, evidence=True, effects=True, groups=("train", "val"))
ORIGIN = {"spec": "demo", "name": "demo", "origin": {}}
EFFECTS = effects_of(SCENE, (*((u,) for u in range(UNITS)), TOGETHER), command=["nd", "ablate", LAYER])


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """Effects and a head of the last layer."""
    early, late = MADE.layers
    layers = (replace(early, effects=None, head=None), replace(late, effects=EFFECTS))
    about = {"network": ORIGIN, "data": {"name": "demo-1"}, "folder": str(tmp_path)}
    write_store(tmp_path / "small.nd.h5", replace(MADE, layers=layers, provenance=about))
    return tmp_path / "small.nd.h5"


@pytest.fixture
def visit(store: Path) -> Iterator[Visit]:
    with Visit(store, Bookmark("layers", 1, LAYER)) as visit:
        yield visit


def hurt(unit: int) -> list[int]:
    """The classes with images, those first that lose most without the unit in the train images."""
    change = EFFECTS.change[0, unit]
    score = EFFECTS.score_without[0, unit].astype(float) - EFFECTS.score[0]
    return sorted((k for k in range(len(NAMES)) if EFFECTS.images[0, k]), key=lambda k: (change[k], score[k]))


def needed(k: int) -> list[int]:
    """The units, those first that the class needs most in the train images."""
    change = EFFECTS.change[0, :UNITS, k]
    score = EFFECTS.score_without[0, :UNITS, k].astype(float) - EFFECTS.score[0, k]
    return sorted(range(UNITS), key=lambda u: (change[u], score[u]))


def shown(value: float) -> str:
    """A change as tables write it."""
    return f"{value:+.3f}" if abs(value) >= 0.0005 else "0.000"


# Classes


def test_5_shows_classes_and_enter_leads_to_units_and_their_pages_and_back(visit: Visit) -> None:
    visit.press("5")
    assert visit.crumbs == "small.nd.h5 › classes"
    assert {line.split("  ")[0] for line in visit.rows} == set(NAMES)
    assert "classes of the images" in visit.info
    visit.press("g")
    name = visit.rows[0].split("  ")[0]
    k = NAMES.index(name)
    visit.press("enter")
    assert visit.crumbs == f"small.nd.h5 › classes › {name}"
    assert [int(words(line)[1]) for line in visit.rows] == needed(k)
    visit.press("enter")
    assert visit.crumbs.startswith(f"small.nd.h5 › classes › {name} › {LAYER}:{needed(k)[0]}")
    visit.press("escape", "escape", "escape")
    assert visit.crumbs == "small.nd.h5 › layers"


def test_a_shows_the_classes_of_the_unit_and_enter_the_units_of_a_class(visit: Visit) -> None:
    visit.press("j")
    unit = number(visit.row)
    visit.press("a")
    assert visit.crumbs == f"small.nd.h5 › classes of {LAYER}:{unit}"
    assert [line.split("  ")[0] for line in visit.rows[:-1]] == [NAMES[k] for k in hurt(unit)]
    first = hurt(unit)[0]
    assert shown(EFFECTS.change[1, unit, first]) in visit.rows[0]
    assert any("needs it" in line for line in visit.rows) == (EFFECTS.high[1, unit] < 0).any()
    visit.press("enter")
    assert visit.crumbs == f"small.nd.h5 › classes › {NAMES[first]}"
    assert int(words(visit.row)[1]) == unit  # that one leads to the class
    visit.press("g", "enter", "a")  # on a unit's page
    assert visit.crumbs == f"small.nd.h5 › classes of {LAYER}:{needed(first)[0]}"
    visit.press("escape")
    assert visit.app.panes.depth == 2


def test_the_classes_of_a_unit_are_sorted_filtered_copied_and_exported(
    visit: Visit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    unit = number(visit.row)
    visit.press("a", "s", "]")
    names = [line.split("  ")[0] for line in visit.rows]
    assert names == sorted(names, key=str.casefold, reverse=True)
    visit.type("/kitchen\n")
    assert visit.position.startswith("1/1 of ")
    visit.press("y")
    assert visit.copied.startswith(f"kitchen\tchange {shown(EFFECTS.change[1, unit, 0])}")
    visit.press("e")
    [path] = tmp_path.glob("small-classes-of-*.csv")
    with path.open() as file:
        [row] = csv.DictReader(file)
    assert float(row["change"]) == pytest.approx(EFFECTS.change[1, unit, 0])


def test_a_units_page_has_its_classes_and_enter_leads_to_their_units(store: Path) -> None:
    with Visit(store, bookmark_named(store, f"{LAYER}:0")) as visit:
        named = [k for k in hurt(0)[:3] if EFFECTS.change[0, 0, k] < 0]
        at = next(i for i, line in enumerate(visit.rows) if line.startswith("classes"))
        assert [line.split("  ")[0] for line in visit.rows[at + 1 : at + 1 + len(named)]] == [NAMES[k] for k in named]
        assert visit.rows[at + 1 + len(named)].startswith("speaks for kitchen +")
        assert visit.rows[at + 2 + len(named)].startswith("speaks against ")
        while not visit.row.removeprefix("›").strip().startswith(NAMES[named[0]]):
            visit.press("j")
        visit.press("enter")
        assert visit.crumbs == f"small.nd.h5 › classes › {NAMES[named[0]]}"


def test_units_have_a_column_of_effects_at_80_columns_and_filters_by_class(visit: Visit) -> None:
    assert words(visit.header)[-2:] == ["held-out", "effect"]
    for line in visit.rows:
        unit = number(line)
        assert words(line)[-1] == shown(EFFECTS.change[1, unit, hurt(unit)[0]])
    visit.type("/class")
    assert visit.position.endswith(f"/{UNITS}")  # a name that asks for more is no word yet
    visit.type(":street effect<-0.02\n")
    expected = {u for u in range(UNITS) if EFFECTS.change[1, u, 1] < -0.02}
    visit.wait(lambda: {number(line) for line in visit.rows} == expected)
    visit.press("escape")
    visit.type("/class:zebra")
    assert "no class matches zebra; there is" in visit.keys


def test_panes_stand_side_by_side_and_a_class_is_opened_again(store: Path) -> None:
    with Visit(store, Bookmark("classes", 1, output=2), size=(140, 40)) as visit:
        assert visit.crumbs == f"small.nd.h5 › classes › {NAMES[2]}"
        assert visit.panes == ["units", "unit"]
        visit.press("h", "g")
        assert visit.panes == ["root", "units"]
        visit.rest()
        first = NAMES.index(visit.rows[0].split("  ")[0])
        beside = [int(words(line)[1]) for line in visit.rows_of(visit.app.panes.units)]
        assert beside == needed(first)
        visit.press("enter", "q")
    with Visit(store, size=(140, 40)) as visit:
        assert visit.crumbs == f"small.nd.h5 › classes › {NAMES[first]}"


def test_without_colour_and_in_ascii_all_is_told(store: Path) -> None:
    with Visit(store, Bookmark("classes"), env={"NO_COLOR": "1"}, unicode=False) as visit:
        assert "needs most of layer4" in visit.header
        visit.press("enter", "a")
        assert words(visit.header)[1:] == ["change", "low", "high", "recall", "speaks", "images"]
        assert all(line.replace(NAMES[-1], "").isascii() for line in visit.lines)


def test_without_effects_the_keys_say_how_to_get_them(tmp_path: Path) -> None:
    with Visit(write_small(tmp_path / "none.nd.h5"), Bookmark("layers", 1, "features.0")) as visit:
        visit.press("5")
        assert visit.notice.startswith("5: this store does not tell what units do to classes; it does after: nd ablate")
        visit.press("escape", "a")
        assert "a: this store does not tell what the units of features.0 do" in visit.notice
        assert "nd ablate features.0 -s" in visit.notice
        visit.press("escape")
        assert "effect" not in visit.header


def test_effects_are_read_when_they_are_shown_and_not_before(store: Path) -> None:
    with mock.patch("ndissect.store.layer_view.read_effects", side_effect=AssertionError), Visit(store) as visit:
        visit.press("j", "2", "3", "1")
        visit.rest()
        assert visit.crumbs == "small.nd.h5 › layers"


# Units ablated in the background

#: Waits for the file "go" beside the store, and adds the effects of the set; or ends as one that fails.
STAND_IN = """
import sys, time
from pathlib import Path
sys.path.insert(0, {tests!r})
from effects_factory import Scene, classes_of, effects_of
from ndissect.store.add_effects import add_effects
from ndissect.tui.app.background import start

name = sys.argv[2]
store = Path(next(word.removeprefix("--store=") for word in sys.argv if word.startswith("--store=")))
print("predictions: 3/12 images", flush=True)
while not (store.parent / "go").exists():
    time.sleep(0.01)
if (store.parent / "go").read_text() == "fail":
    print("note: beside it\\nnd: the images are gone\\n    say where they are", file=sys.stderr)
    sys.exit(1)
scene = Scene({units})
units = tuple(int(u) for u in name.partition(":")[2].split(","))
add_effects(store, "layer4", classes_of(scene), effects_of(scene, (units,)))
"""


@pytest.fixture
def watched(store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Visit]:
    """A visit that looks around twenty times a second, and for which ``nd`` is a stand-in."""
    script = tmp_path / "stand_in.py"
    script.write_text(STAND_IN.format(tests=str(Path(__file__).parent), units=UNITS))
    monkeypatch.setattr(background, "_ND", (sys.executable, str(script)))
    with (
        mock.patch("ndissect.tui.app.app._WATCH", 0.05),
        Visit(store, Bookmark("layers", 1, LAYER), env={"PATH": "/usr/bin:/bin"}) as visit,
    ):
        yield visit
        (store.parent / "go").touch()  # whatever happens, what was started ends


def mark(visit: Visit, *units: int) -> None:
    """Mark units of the layer that is listed."""
    for unit in units:
        visit.press("g")
        while number(visit.row.replace("●", "")) != unit:
            visit.press("j")
        visit.press(" ")


def running(visit: Visit) -> str:
    """What the line of the background run says, "" where it is not shown."""
    line = visit.app.lines.background
    return line.text if line.display else ""


def test_marked_units_are_ablated_together_and_the_result_is_shown(watched: Visit, store: Path) -> None:
    mark(watched, 3, 0, 7)
    watched.press("A")
    watched.wait(lambda: "predictions: 3/12 images" in running(watched))
    assert running(watched).startswith(f"ablating {LAYER}:0,3,7 for ")
    assert "3 marked" in watched.keys
    watched.press("A")
    assert f"{LAYER}:0,3,7 is being ablated" in watched.notice
    watched.press("escape", "j")  # all else goes on
    (store.parent / "go").touch()
    watched.wait(lambda: f"classes without {LAYER}:0,3,7" in watched.crumbs and running(watched) == "")
    watched.wait(lambda: set(NAMES[:-1]) <= {line.split("  ")[0] for line in watched.rows})
    expected = effects_of(SCENE, ((0, 3, 7),))
    rows = {line.split("  ")[0]: line for line in watched.rows}
    for k, name in enumerate(NAMES[:-1]):
        assert shown(expected.change[1, 0, k]) in rows[name]
        assert shown(EFFECTS.change[1, UNITS, k]) in rows[name]  # that of the other set of three
    assert words(watched.header)[:6] == ["class", "change", "low", "high", "recall", "others"]
    with Store(store) as now:
        assert (0, 3, 7) in (now.layer(LAYER).effects or EFFECTS).units
    watched.press("escape")
    assert "replaced" not in watched.notice


def test_a_reader_who_is_busy_is_told_of_the_end_and_not_taken_away(watched: Visit, store: Path) -> None:
    mark(watched, 0, 3)
    watched.press("A")
    watched.type("/oc")
    (store.parent / "go").touch()
    watched.wait(lambda: watched.notice)
    assert watched.notice == f"{LAYER}:0,3 is ablated; A shows what it does"
    assert watched.app.filter_bar.typing
    watched.press("escape", "escape", "A")
    assert f"classes without {LAYER}:0,3" in watched.crumbs


def test_a_reader_of_another_store_is_told_of_the_end(watched: Visit, store: Path) -> None:
    write_small(store.with_name("other.nd.h5"))
    mark(watched, 0, 3)
    watched.press("A", "4")
    watched.type("/other\n")
    watched.press("enter")
    assert watched.crumbs.startswith("other.nd.h5")
    (store.parent / "go").touch()
    watched.wait(lambda: watched.notice)
    assert watched.notice == f"{LAYER}:0,3 is ablated: small.nd.h5 tells what it does"
    assert watched.crumbs.startswith("other.nd.h5")


def test_what_runs_in_the_background_is_nd() -> None:
    done = subprocess.run([*background._ND, "inspect", "--zebra"], capture_output=True, text=True, timeout=60)
    assert done.stderr == "nd: No such option: --zebra\n    nd inspect --help lists what there is\n"
    assert done.returncode == 2


def test_what_is_stored_is_shown_at_once(watched: Visit) -> None:
    mark(watched, *TOGETHER)
    watched.press("A")
    assert f"classes without {LAYER}:1-2,5" in watched.crumbs
    assert "tells this already" in watched.notice
    assert running(watched) == ""


def test_a_run_that_fails_is_one_message(watched: Visit, store: Path) -> None:
    mark(watched, 0, 3)
    (store.parent / "go").write_text("fail")
    watched.press("A")
    watched.wait(lambda: watched.notice)
    assert watched.notice == f"ablating {LAYER}:0,3 failed: the images are gone say where they are"
    assert running(watched) == ""


def test_quitting_leaves_the_run_and_says_so(watched: Visit, store: Path) -> None:
    mark(watched, 0, 3)
    watched.press("A")
    watched.wait(lambda: "predictions" in running(watched))
    said = watched.app.ablations.left_running
    assert said.startswith(f"nd ablate {LAYER}:0,3 goes on (process ")
    assert Path(said.rpartition("its log: ")[2]).read_text().startswith("predictions")
    watched.press("q")
    (store.parent / "go").touch()

    def written() -> bool:
        with Store(store) as now:
            return (0, 3) in (now.layer(LAYER).effects or EFFECTS).units

    watched.wait(written)


def test_a_says_what_it_needs(watched: Visit, monkeypatch: pytest.MonkeyPatch) -> None:
    watched.press("h", "A")
    assert watched.notice == "A: mark units with space first, or go to one"
    watched.press("escape", "l")
    mark(watched, 0, 3)
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "torch" else real(name))
    watched.press("A")
    assert f"{LAYER}:0,3 cannot be ablated here: this needs torch, which is not installed" in watched.notice
    assert f"nd ablate {LAYER}:0,3 -s small.nd.h5" in watched.notice
    watched.press("escape", "h", "g", "l", "space", "A")
    assert watched.notice == "A: the marked units are of several layers: mark those of one"


def test_what_is_missing_is_told_by_the_provenance(tmp_path: Path) -> None:
    (tmp_path / "here.py").touch()
    network = {"spec": "net.py:net", "origin": {"kind": "file", "file": str(tmp_path / "here.py")}}
    about = {"folder": str(tmp_path), "network": network, "data": {"name": "mine", "path": "."}}
    assert missing(about) == []
    assert missing(about, images="not there") == ["the images at not there"]
    gone = {**network, "origin": {"file": str(tmp_path / "gone.py"), "weights_file": str(tmp_path / "w.pt")}}
    told = missing({**about, "network": gone, "data": {"name": "mine", "path": "nowhere"}})
    assert [text.partition(" at ")[0] for text in told] == ["the network's code", "its weights", "the images"]
    assert missing({}) == ["the network, which the store does not name"]
    assert missing({"network": 3, "data": {"path": "a\0b", "name": 7}, "folder": None})[-1] == "the images at a\ufffdb"
    assert missing({"network": {"spec": "timm:x"}}) in ([], ["timm, which is not installed"])


def test_the_code_that_a_store_names_is_told_before_it_is_run() -> None:
    def named(spec: str, **more: object) -> list[str]:
        return code_named({"folder": "/run", "network": {"spec": spec}, **more})

    assert named("net.py:f") == ["/run/net.py"]
    assert named("models.resnet:f") == ["models.resnet"]
    for spec in ("demo", "torchvision:alexnet", "timm:hf-hub:a/b", "hf:a/b"):
        assert named(spec) == []
    assert named("demo", options={"map": "cut.py:f", "labeller": "see.py:f"}) == ["/run/cut.py", "/run/see.py"]
    assert named("demo", asked={"map": "tokens", "labels": ["/x/see\x1b.py:f", None]}) == ["/x/see\ufffd.py"]


def test_the_images_of_the_effects_that_are_there_are_used_again() -> None:
    store = Path("/s/a.nd.h5")
    plain = ["ablate", "layer4:1,2", "--store=/s/a.nd.h5"]
    assert ablation_words("layer4:1,2", store, {}) == plain
    typed = ["nd", "ablate", "layer4", "--images", "a b", "--by=mean"]
    for command in (shlex.join(typed), typed):
        assert ablation_words("layer4:1,2", store, {"command": command}) == [*plain, "--images=a b", "--by=mean"]
    for command in ("nd ablate --network evil.py:f --images", "nd 'ablate", 3, [1, "--weights", "x"]):
        words = ablation_words("layer4:1,2", store, {"command": command})
        assert words[:3] == plain
        assert not any("evil" in word or "weights" in word for word in words)
