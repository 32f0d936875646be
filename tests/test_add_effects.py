"""Effects are put into a store that is there: all else stays as it was, whatever happens on the way."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from bomb_factory import BOMBS, bomb, packed
from effects_factory import Scene, classes_of, effects_of
from store_factory import assert_same, dissection, outline, read_back, visit, write_small
from test_store_write import files, run

from ndissect.store import add_effects as adding
from ndissect.store import limits
from ndissect.store.add_effects import add_effects
from ndissect.store.effects import Classes, without_repeats
from ndissect.store.errors import NDError, WrongUse
from ndissect.store.model import Dissection
from ndissect.store.parts import VERSION
from ndissect.store.reader import Store
from ndissect.store.writer import write_store

LAYER = "features.0"
ARCHIVE = Path(__file__).with_name("archive")
SCENE = Scene(9, seed=3)
CLASSES = classes_of(SCENE)


def with_effects(given: Dissection, effects: object, classes: object = CLASSES) -> Dissection:
    first, *others = given.layers
    return replace(given, layers=(replace(first, effects=effects), *others), classes=classes)


@pytest.mark.parametrize("version", ["1.0", "1.1", "1.2", "1.3", "1.4"])
def test_all_else_in_a_store_of_any_version_stays(tmp_path: Path, version: str) -> None:
    path = tmp_path / "a.nd.h5"
    path.write_bytes((ARCHIVE / f"store-{version}.h5").read_bytes())
    before, effects = read_back(path), effects_of(SCENE)
    add_effects(path, LAYER, CLASSES, effects)
    assert_same(read_back(path), with_effects(before, effects))
    lines = outline(path)
    assert {line.strip() for line in lines if "@encoding-version" in line} == {f"@encoding-version: {VERSION}"}
    assert files(tmp_path) == ["a.nd.h5"]


def test_label_maps_are_copied_as_they_are_packed(tmp_path: Path) -> None:
    path = write_small(tmp_path / "a.nd.h5")
    add_effects(path, LAYER, CLASSES, effects_of(SCENE))
    with h5py.File(path) as f:
        assert f["images/label_maps"].compression == "gzip"
        assert f["images/label_maps"].chunks == (1, 2, 12, 10)
        assert f["layers/features.0/counts/area"].chunks is None


def test_a_store_does_not_grow_by_being_written_again(tmp_path: Path) -> None:
    path = write_small(tmp_path / "a.nd.h5", evidence=True)
    effects = effects_of(SCENE)
    add_effects(path, LAYER, CLASSES, effects)
    size = path.stat().st_size
    for _ in range(3):
        add_effects(path, LAYER, CLASSES, effects)
    assert path.stat().st_size == size


def test_what_a_newer_minor_version_added_stays(tmp_path: Path) -> None:
    path = write_small(tmp_path / "a.nd.h5")
    with h5py.File(path, "r+") as f:
        groups: list[h5py.Group] = [f]
        for group in groups:
            group.attrs["encoding-version"] = np.bytes_("1.17")
            groups += [member for member in group.values() if isinstance(member, h5py.Group)]
        f.attrs["colour"] = np.array([1.5, 2])
        new = f["layers/features.0"].create_group("directions")
        new.attrs["encoding-type"] = np.bytes_("ndissect-directions")
        new.attrs["encoding-version"] = np.bytes_("1.17")
        new.create_dataset("packed", data=np.arange(100.0), chunks=(10,), compression="gzip", shuffle=True)
        new["packed"].attrs["unit"] = np.bytes_("m")
    before = outline(path)
    add_effects(path, LAYER, CLASSES, effects_of(SCENE))
    after = outline(path)
    at = iter(after)
    assert all(line in at for line in before), "every line, in its order"
    assert {line.strip() for line in after if "@encoding-version" in line} == {"@encoding-version: 1.17"}
    with h5py.File(path) as f:
        assert f["layers/features.0/directions/packed"][()].tolist() == list(range(100))
        assert f["layers/features.0/directions/packed"].attrs["unit"] == b"m"
        assert f.attrs["colour"].tolist() == [1.5, 2]
    assert visit(path) == 15


def test_ablations_that_the_store_holds_stay_beside_new_ones(tmp_path: Path) -> None:
    path = write_small(tmp_path / "a.nd.h5")
    assert add_effects(path, LAYER, CLASSES, effects_of(SCENE, ((0,), (5,)))) is None
    assert add_effects(path, LAYER, CLASSES, effects_of(SCENE, ((5,), (3, 4), (3, 4), (2,)))) is None
    with Store(path) as store:
        assert_same(store.layer(LAYER).effects, effects_of(SCENE, ((0,), (2,), (5,), (3, 4))))
    other = effects_of(SCENE, ((8,),), by="mean")
    gone = add_effects(path, LAYER, CLASSES, other)
    assert gone is not None
    assert gone.units == ((0,), (2,), (5,), (3, 4))
    with Store(path) as store:
        assert_same(store.layer(LAYER).effects, other)
        assert store.layer("layer4.1.conv2").effects is None


def test_classes_are_named_once_and_numbers_get_names(tmp_path: Path) -> None:
    path = write_small(tmp_path / "a.nd.h5")
    numbers = Classes(("0", "1", "2", "3", "4"), "their numbers")
    for given, expected in ((numbers, numbers), (CLASSES, CLASSES), (numbers, CLASSES), (CLASSES, CLASSES)):
        add_effects(path, LAYER, given, effects_of(SCENE))
        with Store(path) as store:
            assert store.classes == expected
    before = path.read_bytes()
    for names in (("a", "b"), ("a", "b", "c", "d", "e")):
        with pytest.raises(WrongUse, match="classes, and these are"):
            add_effects(path, LAYER, Classes(names, "x"), effects_of(Scene(9, len(names))))
    assert path.read_bytes() == before


def test_what_does_not_fit_is_refused_and_the_store_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_small(tmp_path / "a.nd.h5")
    before = path.read_bytes()
    effects = effects_of(SCENE)
    with pytest.raises(WrongUse, match="no layer 'features'"):
        add_effects(path, "features", CLASSES, effects)
    with pytest.raises(WrongUse, match=r"features\.0 has no unit 9"):
        add_effects(path, LAYER, CLASSES, effects_of(Scene(10)))
    with pytest.raises(WrongUse, match="names of the classes"):
        add_effects(path, LAYER, Classes(("x" * 2000, *CLASSES.names[1:]), "x"), effects)
    monkeypatch.setattr(limits, "EFFECTS", limits.Limit(89, "effects (splits x ablations x classes)"))
    with pytest.raises(WrongUse, match=r"would hold 90 effects \(splits x ablations x classes\), the limit is 89"):
        add_effects(path, LAYER, CLASSES, effects)
    with pytest.raises(NDError, match="no store at"):
        add_effects(tmp_path / "b.nd.h5", LAYER, CLASSES, effects)
    assert path.read_bytes() == before
    assert files(tmp_path) == ["a.nd.h5"]


def test_a_link_is_replaced_and_what_it_leads_to_stays(tmp_path: Path) -> None:
    """As by every command that writes a store."""
    (tmp_path / "far").mkdir()
    target = write_small(tmp_path / "far" / "b.nd.h5")
    path, before = tmp_path / "a.nd.h5", target.read_bytes()
    path.symlink_to(target)
    add_effects(path, LAYER, CLASSES, effects_of(SCENE))
    assert not path.is_symlink()
    assert target.read_bytes() == before
    assert read_back(path).classes == CLASSES


def test_what_another_program_wrote_meanwhile_is_not_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_small(tmp_path / "a.nd.h5")
    written = adding._write
    turns = iter([True])

    def interrupted(*arguments: object) -> None:
        if next(turns, False):
            add_effects(path, "layer4.1.conv2", CLASSES, effects_of(Scene(6)))
        written(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(adding, "_write", interrupted)
    add_effects(path, LAYER, CLASSES, effects_of(SCENE))
    with Store(path) as store:
        assert store.layer(LAYER).effects is not None
        assert store.layer("layer4.1.conv2").effects is not None


# --- killed, and a full disk ----------------------------------------------------------------------------------------

KILLER = """
import json, os, random, signal, sys, time
from pathlib import Path
from effects_factory import Scene, classes_of, effects_of
from ndissect.store.add_effects import add_effects
from store_factory import assert_same, dissection, read_back, write_small
path = Path(sys.argv[1])
scene = Scene(300, images=8)
write_small(path, layers={"a": (300, (7, 7)), "b": (200, (4, 4))})
old, effects = read_back(path), effects_of(scene, tuple((u,) for u in range(300)))
held = path.read_bytes()
began = time.monotonic()
add_effects(path, "a", classes_of(scene), effects)
takes = time.monotonic() - began
new = read_back(path)
rng = random.Random(0)
left = {"old": 0, "new": 0}
for turn in range(24):
    path.write_bytes(held)
    writer = os.fork()
    if writer == 0:
        add_effects(path, "a", classes_of(scene), effects)
        os._exit(0)
    if turn % 8 != 7:
        time.sleep(rng.uniform(0, 1.5 * takes) if turn % 8 else 0)
        os.kill(writer, signal.SIGKILL)
    os.waitpid(writer, 0)
    found = read_back(path)
    which = "old" if found.classes is None else "new"
    assert_same(found, old if which == "old" else new)
    left[which] += 1
add_effects(path, "a", classes_of(scene), effects)
print(json.dumps(left))
"""


def test_a_kill_at_any_moment_leaves_the_store_as_it_was_or_with_the_effects(tmp_path: Path) -> None:
    done = run(KILLER, tmp_path / "a.nd.h5", check=False)
    assert done.returncode == 0, done.stderr
    left = json.loads(done.stdout)
    assert left["old"] > 0
    assert left["new"] > 0
    assert files(tmp_path) == ["a.nd.h5"], "the next run removes what was left over"


LIMITED = """
import resource, signal, sys
from pathlib import Path
from effects_factory import Scene, classes_of, effects_of
from ndissect.store.add_effects import add_effects
from ndissect.store.errors import NDError
path, scene = Path(sys.argv[1]), Scene(9)
classes, effects = classes_of(scene), effects_of(scene)
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
for limit in map(int, sys.argv[2:]):
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    try:
        add_effects(path, "features.0", classes, effects)
        print("written")
    except NDError as e:
        print(e.message, "|", e.hint)
"""


def test_a_disk_that_is_full_at_any_byte_of_the_file(tmp_path: Path) -> None:
    path = write_small(tmp_path / "a.nd.h5")
    before = path.read_bytes()
    add_effects(path, LAYER, CLASSES, effects_of(Scene(9)))
    size = path.stat().st_size
    path.write_bytes(before)
    limits = [0, 1, 100, 2048, *range(4096, size, size // 30), size - 1]
    done = run(LIMITED, path, *limits, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert len(lines) == len(limits)
    for line in lines:
        assert line.startswith(f"cannot write {path}: File too large | a file that was there before is unchanged"), line
    assert path.read_bytes() == before
    assert files(tmp_path) == ["a.nd.h5"]


# --- files that nobody vouches for ----------------------------------------------------------------------------------


def hostile(path: Path, what: str) -> Path:
    """A store that reads as any other and holds, where no reader looks, what a store never does."""
    write_small(path)
    with h5py.File(path, "r+") as f:
        if what == "a soft link":
            f["more"] = h5py.SoftLink("/concepts")
        elif what == "an external link":
            f["more"] = h5py.ExternalLink("/etc/passwd", "/")
        elif what == "one object under many names":
            for i in range(50):
                f[f"l{i}"] = f["layers"]
        elif what == "a group in itself":
            f["layers/again"] = f["/"]
        elif what == "text of any length":
            f["more"] = ["text"]
        elif what == "an attribute of any length":
            f["concepts"].attrs["more"] = "text"
        elif what == "a large attribute":
            f["concepts"].attrs["more"] = np.zeros(5000)
        elif what == "a named type":
            f["more"] = np.dtype("i4")
        elif what == "a reference":
            f["more"] = np.array([f.ref], h5py.ref_dtype)
        elif what == "external storage":
            f.create_dataset("more", (9,), "i8", external=[("raw", 0, 72)])
        elif what == "a virtual dataset":
            layout = h5py.VirtualLayout((1, 9), "i8")
            layout[:] = h5py.VirtualSource("other.nd.h5", "concepts/area", (1, 9))
            f.create_virtual_dataset("more", layout)
    return path


@pytest.mark.parametrize(
    "what",
    [
        *("a soft link", "an external link", "one object under many names", "a group in itself", "text of any length"),
        *("an attribute of any length", "a large attribute", "a named type", "a reference", "external storage"),
        "a virtual dataset",
    ],
)
def test_what_a_store_never_holds_is_not_copied(tmp_path: Path, what: str) -> None:
    path = hostile(tmp_path / "a.nd.h5", what)
    before = path.read_bytes()
    with pytest.raises(NDError, match="is damaged") as failed:
        add_effects(path, LAYER, CLASSES, effects_of(SCENE))
    assert str(path) in failed.value.message
    assert path.read_bytes() == before
    assert files(tmp_path) == ["a.nd.h5"]


@pytest.mark.parametrize("what", ["30,000 links", "groups in themselves", "20,000 label maps an image"])
def test_a_bomb_is_copied_or_refused_and_stays(tmp_path: Path, what: str) -> None:
    path = bomb(tmp_path / "a.nd.h5", BOMBS[what][0])
    before = path.read_bytes()
    try:
        add_effects(path, LAYER, CLASSES, effects_of(SCENE))
        assert path.stat().st_size < 2 * len(before) + 100_000
    except NDError as e:
        assert str(path) in e.message
        assert path.read_bytes() == before
    assert files(tmp_path) == ["a.nd.h5"]


def test_effects_and_heads_beyond_the_limits_are_refused_before_they_are_read(tmp_path: Path) -> None:
    path = write_small(tmp_path / "a.nd.h5", effects=True)
    with h5py.File(path, "r+") as f:
        packed(f, "layers/features.0/effects/hits_without", (2, 3_000_000, 5), "u4")
        packed(f, "layers/layer4.1.conv2/effects/hits_without", (32, 110_000, 5), "u4")
        packed(f, "layers/layer4.1.conv2/head/weight", (5, 6), "f4")
    with Store(path) as store:
        with pytest.raises(NDError, match="3,000,000 ablations, the limit"):
            _ = store.layer(LAYER).effects
        with pytest.raises(NDError, match=r"17,600,000 effects \(splits x ablations x classes\)"):
            _ = store.layer("layer4.1.conv2").effects
    with h5py.File(path, "r+") as f:
        packed(f, "classes/name", (5_000_000,), "S4")
    with Store(path) as store, pytest.raises(NDError, match="5,000,000 classes"):
        _ = store.classes


def test_what_comes_at_no_cost_is_no_reason_to_fail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Classes and heads are left out where a store cannot hold them, and all else is written."""
    made = dissection(effects=True, layers={"a": (5, (2, 2)), "b": (6, (2, 2))})
    bare = replace(made, layers=tuple(replace(layer, effects=None) for layer in made.layers))
    long = replace(bare, classes=Classes(("x" * 2000,) * 5, "x"))
    write_store(tmp_path / "a.nd.h5", long)
    headless = tuple(replace(layer, head=None) for layer in bare.layers)
    assert_same(read_back(tmp_path / "a.nd.h5"), replace(bare, classes=None, layers=headless))
    first = bare.layers[0]
    assert first.head is not None
    first.head.weight[0, 0] = np.inf
    write_store(tmp_path / "b.nd.h5", bare)
    assert [layer.head is None for layer in read_back(tmp_path / "b.nd.h5").layers] == [True, False]
    first.head.weight[0, 0] = 0
    monkeypatch.setattr(limits, "HEAD", limits.Limit(25, "weights of a head"))
    write_store(tmp_path / "c.nd.h5", bare)
    assert [layer.head is None for layer in read_back(tmp_path / "c.nd.h5").layers] == [False, True]


def test_permissions_are_those_of_a_new_file(tmp_path: Path) -> None:
    path = write_small(tmp_path / "a.nd.h5")
    path.chmod(0o444)
    add_effects(path, LAYER, CLASSES, without_repeats(effects_of(SCENE)))
    mask = os.umask(0o22)
    os.umask(mask)
    assert path.stat().st_mode & 0o777 == 0o666 & ~mask
