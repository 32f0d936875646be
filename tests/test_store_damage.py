"""A store is untrusted input: whatever is wrong with a file, reading it gives a valid answer or one clear error."""

from __future__ import annotations

import json
import os
import random
import select
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from store_factory import PROTOCOL, read_back, visit, write_small

from ndissect.store.errors import NDError, WrongUse
from ndissect.store.files import find_store
from ndissect.store.hdf5 import open_hdf5

Change = Callable[[h5py.File], object]
LAYER = "layers/features.0/"
EFFECTS = LAYER + "effects/"
pytestmark = pytest.mark.filterwarnings("error")  # a warning would reach the user's terminal


def refused(path: Path, *said: str) -> NDError:
    """The one error that looking at everything in ``path`` gives; it names the file and says each of ``said``."""
    with pytest.raises(NDError) as failed:
        visit(path)
    text = str(failed.value)
    assert str(path) in text
    assert failed.value.hint
    for words in said:
        assert words in text
    return failed.value


def changed(path: Path, change: Change) -> Path:
    write_small(path, evidence=True, effects=True)
    with h5py.File(path, "r+") as f:
        change(f)
    return path


def put(name: str, data: object = None, **options: object) -> Change:
    """Replace the dataset ``name``."""

    def change(f: h5py.File) -> None:
        if name in f:
            del f[name]
        f.create_dataset(name, data=data, **options)

    return change


def attribute(group: str, name: str, value: object) -> Change:
    return lambda f: f[group].attrs.__setitem__(name, value)


def entry(name: str, at: object, value: object) -> Change:
    return lambda f: f[name].__setitem__(at, value)


def without(name: str) -> Change:
    return lambda f: f.__delitem__(name)


# --- files that are no store ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return write_small(tmp_path_factory.mktemp("good") / "a.nd.h5", evidence=True, effects=True).read_bytes()


def test_truncated_at_any_length(tmp_path: Path, good: bytes) -> None:
    path = tmp_path / "a.nd.h5"
    lengths = [*range(1, 100), *range(100, len(good), 997), len(good) - 8, len(good) - 1]
    for length in lengths:
        path.write_bytes(good[:length])
        refused(path)
        if length >= 2048:
            refused(path, "truncated", "copy it again")


def test_zero_bytes(tmp_path: Path) -> None:
    path = tmp_path / "a.nd.h5"
    path.touch()
    refused(path, "is empty")


@pytest.mark.parametrize("data", [b"\0" * 5000, b"PK\3\4", b"unit,category\n1,object\n", b"\x89HDF\r\n\x1a\n" * 100])
def test_not_hdf5(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "a.nd.h5"
    path.write_bytes(data)
    refused(path)


def test_hdf5_of_another_program(tmp_path: Path) -> None:
    path = tmp_path / "weights.h5"
    with h5py.File(path, "w") as f:
        f["model_weights/conv/kernel"] = np.zeros((3, 3))
    refused(path, "is an HDF5 file, but not an ndissect store")
    with h5py.File(path, "r+") as f:
        f.attrs["encoding-type"], f.attrs["encoding-version"] = "anndata", "0.1.0"
    refused(path)


def test_bytes_after_the_end_change_nothing(tmp_path: Path, good: bytes) -> None:
    path = tmp_path / "a.nd.h5"
    path.write_bytes(good + b"more")
    assert visit(path) == 15


def test_what_is_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path, Path("/dev/null")):
        with pytest.raises(NDError, match="is no regular file"):
            open_hdf5(path)
    with pytest.raises(NDError, match="no store at"):
        open_hdf5(tmp_path / "absent")
    (tmp_path / "loop").symlink_to("loop")
    for name in ("absent", "absent/x", "n" * 300, "loop"):
        with pytest.raises(WrongUse, match="no store at"):
            find_store(tmp_path / name)


def test_the_newest_store_is_a_file_that_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    older, newer = write_small(tmp_path / "a.nd.h5"), write_small(tmp_path / "b.nd.h5")
    os.utime(older, (1, 1))
    (tmp_path / "folder.nd.h5").mkdir()
    (tmp_path / "gone.nd.h5").symlink_to(tmp_path / "nowhere")
    (tmp_path / ".c.nd.h5.17.part").touch()
    monkeypatch.chdir(tmp_path)
    assert find_store(None, {}).resolve() == newer
    assert find_store(tmp_path, {}) == newer
    assert find_store(None, {"ND_STORE": str(older)}) == older
    (tmp_path / "empty").mkdir()
    with pytest.raises(WrongUse, match=r"no \*\.nd\.h5 store in"):
        find_store(tmp_path / "empty")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read(tmp_path: Path) -> None:
    path = write_small(tmp_path / "a.nd.h5")
    path.chmod(0)
    refused(path, "may not be read", "permissions")


# --- versions -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", ["2.0", "2", "10.3", "999999999.0"])
def test_a_file_from_the_future_asks_for_an_update(tmp_path: Path, version: str) -> None:
    path = changed(tmp_path / "a.nd.h5", attribute("/", "encoding-version", np.bytes_(version)))
    refused(path, f"store format {version}", "update nd")


def test_a_file_from_the_future_is_refused_before_its_content_is_looked_at(tmp_path: Path) -> None:
    path = tmp_path / "a.nd.h5"
    with h5py.File(path, "w") as f:
        f.attrs["encoding-type"], f.attrs["encoding-version"] = np.bytes_("ndissect-store"), np.bytes_("2.0")
    refused(path, "update nd")


@pytest.mark.parametrize(
    "version",
    [
        *(text.encode() for text in ("", "0.9", "one", "²", "-1.0", "9" * 5000)),
        *(1.0, np.array([b"1.0", b"1.0"]), h5py.Empty("S3"), "1.0"),
    ],
    ids=lambda v: repr(v)[:30],
)
def test_a_version_that_is_none(tmp_path: Path, version: object) -> None:
    refused(changed(tmp_path / "a.nd.h5", attribute("/", "encoding-version", version)), "encoding-version")


def test_what_a_newer_minor_version_adds_is_ignored(tmp_path: Path) -> None:
    def add(f: h5py.File) -> None:
        f.attrs["encoding-version"] = np.bytes_("1.17")
        f.attrs["colour"] = "red"
        for group in ("/", "concepts", "images", "layers", LAYER, LAYER + "best", LAYER + "counts", LAYER + "effects"):
            new = f[group].create_group("new")
            new.attrs["encoding-type"] = np.bytes_("something-else")
            new["data"] = np.zeros(3)
            f[group]["more"] = ["text"]
            f[group].attrs["more"] = [1, 2]
        protocol = PROTOCOL.to_json() | {"new": [1]}
        put("protocol", np.bytes_(json.dumps(protocol)))(f)

    write_small(tmp_path / "b.nd.h5")
    path = changed(tmp_path / "a.nd.h5", add)
    assert visit(path) == 15
    assert read_back(path).protocol == PROTOCOL
    before, after = read_back(tmp_path / "b.nd.h5"), read_back(path)
    assert np.array_equal(before.layers[0].best.iou, after.layers[0].best.iou)


# --- every member the file has, missing or replaced by what it is not -----------------------------------------------

WRONG: dict[str, object] = {
    "a missing member": None,
    "a group": {},
    "one text": np.bytes_("text"),
    "nothing": h5py.Empty("i4"),
    "five axes": np.zeros((1, 1, 1, 1, 1), np.int32),
    "a variable-length text": "text",
    "records": np.zeros(5, [("a", "i4")]),
    "complex numbers": np.zeros((5, 6), np.complex64),
}
#: What the format lets a file leave out; what refers to it may still be refused.
OPTIONAL = {"images", "layers/a/counts", "layers/a/top", "layers/a/rows", "layers/a/columns"}
OPTIONAL |= {"blocks", "block_images", "layers/a/evidence", "layers/a/leading", "layers/a/null"}
OPTIONAL |= {"classes", "layers/a/head", "layers/a/effects"}
OPTIONAL |= {"/@grid", "layers/a@map_size", "layers/a@module"}


def small(path: Path) -> Path:
    return write_small(path, layers={"a": (5, (4, 5))}, evidence=True, effects=True)


def members() -> list[str]:
    """All groups, datasets and attributes (``group@name``) of a store that a reader looks at."""
    found: list[str] = []
    with tempfile.TemporaryDirectory() as folder, h5py.File(small(Path(folder) / "a.nd.h5")) as f:
        f.visit(found.append)
        for name in ["/", *found]:
            found += [f"{name}@{key}" for key in f[name].attrs if name == "/" or key != "encoding-version"]
    return found


@pytest.mark.parametrize("member", members())
def test_a_member_that_is_missing_or_something_else_is_named(tmp_path: Path, member: str) -> None:
    whole = small(tmp_path / "whole.nd.h5").read_bytes()
    path = tmp_path / "a.nd.h5"
    group, _, key = member.partition("@")
    for what, value in WRONG.items():
        if what == "a group" and key:
            continue
        path.write_bytes(whole)
        with h5py.File(path, "r+") as f:
            where, name = (f[group].attrs, key) if key else (f, member)
            del where[name]
            if what == "a group":
                f.create_group(member)
            elif value is not None:
                is_text = key in ("encoding-type", "module") or member in ("protocol", "provenance", "classes/source")
                where[name] = "variable-length" if is_text and what == "one text" else value
        if value is None and member in OPTIONAL:
            try:
                assert visit(path, sheets=False) == 5
            except NDError as e:
                assert str(path) in e.message
            continue
        with pytest.raises(NDError) as failed:
            visit(path, sheets=False)
        text = failed.value.message
        assert str(path) in text, what
        assert (key or member.rpartition("/")[2]) in text or "not an ndissect store" in text, what


# --- content that is wrong ------------------------------------------------------------------------------------------


def text_of(value: object) -> Change:
    return put("protocol", np.bytes_(json.dumps(PROTOCOL.to_json() | value) if isinstance(value, dict) else value))


BROKEN_PROTOCOLS = {
    "no JSON": '{"name',
    "not UTF-8": b'{"name": "\xff"}',
    "nested for ever": "[" * 100_000,
    "a list": "[]",
    "null": "null",
    "empty": "",
    **{f"q {q!r}": {"q": q} for q in ("1/0", "0/1", "3/2", "-1/2", "1e-999999999", "x", "", "9" * 5000 + "/1", 0.005)},
    **{
        f"q {q}": json.dumps(PROTOCOL.to_json()).replace('"1/20"', q)
        for q in ("NaN", "Infinity", "1e999", "[]", "null")
    },
    **{f"grid {g}": {"grid": g} for g in (5, [1], [1, 2, 3], ["a", "b"], [0, 5], [1.5, 2], [9**99, 2], "ab", {})},
    **{f"min_images {n}": {"min_images": n} for n in (-1, "1", 1.5, None)},
    "min_images Infinity": json.dumps(PROTOCOL.to_json()).replace('"min_images": 0', '"min_images": Infinity'),
    "union": {"union": "both"},
    "maps": {"maps": []},
    "upsampling": {"upsampling": "nearest"},
    "quantile_over": {"quantile_over": 3},
    "name": {"name": 3},
    "an escape": {"name": "\x1b[31m"},
}


@pytest.mark.parametrize("what", BROKEN_PROTOCOLS)
def test_a_protocol_that_is_none(tmp_path: Path, what: str) -> None:
    refused(changed(tmp_path / "a.nd.h5", text_of(BROKEN_PROTOCOLS[what])), "/protocol is no")


@pytest.mark.parametrize("key", PROTOCOL.to_json())
def test_a_protocol_without_one_of_its_keys(tmp_path: Path, key: str) -> None:
    less = {k: v for k, v in PROTOCOL.to_json().items() if k != key}
    refused(changed(tmp_path / "a.nd.h5", put("protocol", np.bytes_(json.dumps(less)))), "/protocol", key)


@pytest.mark.parametrize("text", ["{", "[]", "3", "null", "[" * 100_000, '{"a": ' * 5000], ids=lambda t: t[:10])
def test_provenance_that_is_no_json_object(tmp_path: Path, text: str) -> None:
    refused(changed(tmp_path / "a.nd.h5", put("provenance", np.bytes_(text))), "/provenance is no")


WRONG_CONTENT: dict[str, tuple[Change, str]] = {
    "a concept out of range": (entry(LAYER + "best/concept", (0, 0), 9), "best/concept points outside"),
    "a concept below -1": (entry(LAYER + "best/concept", (0, 0), -2), "best/concept points outside"),
    "a concept of another category": (entry(LAYER + "best/concept", (0, 0), 8), "concept of another category"),
    "a concept beyond 32 bits": (put(LAYER + "best/concept", np.full((9, 6), 1 << 32)), "best/concept points outside"),
    "a category out of range": (entry("concepts/category", 0, 6), "category points outside"),
    "a category below 0": (entry("concepts/category", 0, -1), "category points outside"),
    "a category beyond 32 bits": (put("concepts/category", np.full(9, 1 << 32)), "category points outside"),
    "number 0": (entry("concepts/number", 0, 0), "number"),
    "numbers out of order": (entry("concepts/number", 0, 500), "not in rising order"),
    "a number twice": (entry("concepts/number", 1, 1), "not in rising order"),
    "a negative count": (entry(LAYER + "best/area", (0, 0), -5), "best/area holds -5"),
    "a count of 2^63": (put(LAYER + "best/area", np.full((9, 6), 1 << 63, np.uint64)), "best/area holds -"),
    "an intersection larger than the concept": (
        entry(LAYER + "best/intersection", (0, 0), 1 << 62),
        "exceeds the area of the concept",
    ),
    "a negative concept area": (entry("concepts/area", ..., -(1 << 63)), "concepts/area holds -"),
    "fewer images than none": (entry("concepts/images", ..., -2), "concepts/images holds -2"),
    "negative counts": (put(LAYER + "counts/intersection", np.full((1, 9, 9), -1)), "intersection holds -1"),
    "an image out of range": (entry(LAYER + "top/image", (0, 0), 99), "/images/index has no row 99"),
    "an image below -1": (entry(LAYER + "top/image", (0, 0), -9), "top/image holds -9"),
    "a cell outside the map": (entry(LAYER + "rows/cell", 0, 5), "rows/cell points outside"),
    "a cell before the map": (entry(LAYER + "rows/cell", 0, -1), "rows/cell points outside"),
    "a weight above 1": (entry(LAYER + "rows/weight", 0, 1.01), "rows/weight"),
    "a weight that is NaN": (entry(LAYER + "columns/weight", 0, np.nan), "columns/weight"),
    "maps of another size": (put(LAYER + "top/map", np.ones((9, 3, 2, 2), np.float32)), "top/map has the shape"),
    "maps of no size": (put(LAYER + "top/map", np.ones((9, 3, 0, 5), np.float32)), "top/map has the shape"),
    "label maps of another size": (put("images/label_maps", np.ones((12, 2, 3, 3), np.uint16)), "label_maps has the"),
    "fewer top images than peaks": (put(LAYER + "top/peak", np.ones((9, 2), np.float32)), "top/peak has the shape"),
    "a share above 1": (entry(LAYER + "evidence/q", 0, 1.5), "evidence/q holds what is no share"),
    "a share below 0": (entry(LAYER + "evidence/iou_low", 0, -0.1), "evidence/iou_low holds what is no share"),
    "a share that is infinite": (entry(LAYER + "evidence/auprc", 0, np.inf), "evidence/auprc holds what is no share"),
    "evidence of other units": (put(LAYER + "evidence/p", np.zeros(8)), "evidence/p has the shape"),
    "a held-out label out of range": (
        entry(LAYER + "evidence/heldout_concept", 0, 9),
        "heldout_concept points outside",
    ),
    "a leading concept out of range": (
        entry(LAYER + "leading/concept", (0, 0, 0), 9),
        "leading/concept points outside",
    ),
    "a leading concept of another category": (
        entry(LAYER + "leading/concept", (0, 0, 0), 8),
        "leading/concept points to a concept of another category",
    ),
    "four leading concepts": (put(LAYER + "leading/concept", np.zeros((9, 6, 4), np.int32)), "concept has the shape"),
    "negative counts by block": (put(LAYER + "leading/area", np.full((9, 32, 6), -1)), "leading/area holds -1"),
    "blocks of another number": (put("blocks/images", np.ones(16, np.int64)), "blocks/images has the shape"),
    "blocks with fewer images than none": (entry("blocks/images", 3, -1), "blocks/images holds -1"),
    "blocks of other concepts": (put("blocks/concept_area", np.ones((32, 8), np.int64)), "concept_area has the shape"),
    "a null of other units": (put(LAYER + "null/concept", np.zeros((6, 8), np.int32)), "null/concept has the shape"),
    "a null of fewer pairings": (put(LAYER + "null/area", np.zeros((5, 9), np.int64)), "null/area has the shape"),
    "a null's concept out of range": (entry(LAYER + "null/concept", (0, 0), 9), "null/concept points outside"),
    "a null larger than its concept": (
        entry(LAYER + "null/intersection", (0, 0), 1 << 40),
        "null/intersection exceeds the area of the concept",
    ),
    "a head of other units": (put(LAYER + "head/weight", np.zeros((5, 8), np.float32)), "head/weight has the shape"),
    "a head of other classes": (put(LAYER + "head/bias", np.zeros(4, np.float32)), "head/bias has the shape"),
    "a weight that is infinite": (entry(LAYER + "head/weight", (0, 0), np.inf), "weight holds what is no finite"),
    "a bias that is NaN": (entry(LAYER + "head/bias", 0, np.nan), "head/bias holds what is no finite"),
    "more classes than effects": (put("classes/name", np.full(6, b"x")), "has the shape"),
    "effects of no classes": (without("classes"), "has the shape"),
    "an ablated unit out of range": (entry(EFFECTS + "unit", 3, 9), "effects/unit points outside a table of 9"),
    "an ablated unit below 0": (entry(EFFECTS + "unit", 3, -1), "effects/unit points outside"),
    "an ablation of no unit": (entry(EFFECTS + "unit_end", 3, 3), "effects/unit_end points outside of unit"),
    "an ablation beyond the end": (entry(EFFECTS + "unit_end", 9, 99), "effects/unit_end points outside of unit"),
    "units that no ablation has": (entry(EFFECTS + "unit_end", 9, 10), "effects/unit_end points outside of unit"),
    "an ablation of the same unit twice": (entry(EFFECTS + "unit", 10, 0), "effects/unit is not in rising order"),
    "the same ablation twice": (entry(EFFECTS + "unit", 3, 2), "effects/unit names an ablation twice"),
    "fewer ablations": (put(EFFECTS + "unit_end", np.arange(1, 10)), "effects/unit_end has the shape"),
    "more splits than effects": (put(EFFECTS + "splits", np.full(3, b"x")), "effects/splits has the shape"),
    "effects of no split": (
        lambda f: [
            put(EFFECTS + name, np.zeros((0, *f[EFFECTS + name].shape[1:]), f[EFFECTS + name].dtype))(f)
            for name in f[EFFECTS]
            if f[EFFECTS + name].shape[:1] == (2,)
        ],
        "effects/splits names no split",
    ),
    "more hits than images": (entry(EFFECTS + "hits", (0, 0), 1 << 20), "effects/hits exceeds the number of images"),
    "more hits without a unit": (entry(EFFECTS + "hits_without", (1, 2, 0), 99), "hits_without exceeds the number"),
    "more false ones than others": (entry(EFFECTS + "false", (0, 0), 99), "effects/false exceeds the number of images"),
    "more false ones without a unit": (entry(EFFECTS + "false_without", (0, 9, 4), 99), "false_without exceeds the"),
    "images of a class below 0": (put(EFFECTS + "images", np.full((2, 5), -1)), "effects/images holds -1"),
    "an interval upside down": (entry(EFFECTS + "low", (0, 0, 0), 0.9), "effects/low is above its upper end"),
    "an origin that is a list": (put(EFFECTS + "origin", np.bytes_("[]")), "effects/origin is not a JSON object"),
    "an origin that is none": (put(EFFECTS + "origin", np.bytes_("{")), "effects/origin is not JSON"),
    "a grid of another size": (attribute("/", "grid", np.array([13, 10])), "is expected"),
    "a grid of three": (attribute("/", "grid", np.array([12, 10, 3])), "@grid is not two integers"),
    "a grid of no size": (attribute("/", "grid", np.array([0, 10])), "@grid is no size"),
    "a grid beyond all sizes": (attribute("/", "grid", np.array([1 << 40, 10])), "@grid is no size"),
    "a grid of floats": (attribute("/", "grid", np.array([np.inf, 10])), "@grid is of another type"),
    "another map size": (attribute(LAYER, "map_size", np.array([5, 4])), "is expected"),
    "more groups than counts": (put("groups", np.array([b"a", b"b"])), "concepts/area has the shape"),
    "no groups": (put("groups", np.zeros(0, "S1")), "concepts/area has the shape"),
    "more layer names than layers": (put("layer_names", np.array([b"features.0", b"b"])), "/layers/b is missing"),
    "a layer named twice": (put("layer_names", np.array([b"features.0"] * 2)), "names a layer twice"),
    "an empty layer name": (put("layer_names", np.array([b""])), "is no name of a member"),
    "a layer group inside itself": (
        lambda f: (f.__delitem__("layers/features.0"), f["layers"].__setitem__("features.0", f["layers"])),
        "is not of encoding-type ndissect-layer",
    ),
    "a thumbnail that is no JPEG": (entry("images/thumbnails", ..., 7), "thumbnail is no small JPEG"),
    "a thumbnail beyond the end": (entry("images/thumbnail_end", 11, 10**9), "thumbnail_end points outside"),
    "a thumbnail that ends before it begins": (entry("images/thumbnail_end", 0, 10**6), "thumbnail_end points outside"),
    "thumbnails without an end": (put("images/thumbnail_end", np.zeros(11, np.int64)), "thumbnail_end has the shape"),
}


@pytest.mark.parametrize("what", WRONG_CONTENT)
def test_content_that_cannot_be(tmp_path: Path, what: str) -> None:
    change, said = WRONG_CONTENT[what]
    refused(changed(tmp_path / "a.nd.h5", change), said)


HARMLESS: dict[str, Change] = {
    "values at the limits of float32": entry(LAYER + "top/map", ..., np.float32(3e38)),
    "infinite and NaN maps": entry(LAYER + "top/map", (slice(None), slice(0, 2)), [[[[np.inf]], [[np.nan]]]]),
    "NaN thresholds and peaks": lambda f: [f[LAYER + n].__setitem__(..., np.nan) for n in ("threshold", "top/peak")],
    "infinite thresholds": entry(LAYER + "threshold", ..., -np.inf),
    "names that are not UTF-8": put("concepts/name", np.full(9, b"\xff\xfe")),
    "empty names": put("concepts/name", np.full(9, b"")),
    "evidence of which nothing is known": lambda f: [
        d.__setitem__(..., -1 if d.dtype.kind == "i" else np.nan) for d in f[LAYER + "evidence"].values()
    ],
    "counts by block at the limits of 64 bits": lambda f: [
        put(name, np.full(f[name].shape, 1 << 62))(f)
        for name in ("blocks/images", "blocks/concept_area", LAYER + "leading/intersection", LAYER + "leading/area")
    ],
    "a label that is none of the leading concepts": entry(LAYER + "leading/concept", ..., -1),
    "blocks without images": entry("blocks/images", ..., 0),
    "a null of no pairings": lambda f: [
        put(LAYER + f"null/{name}", np.zeros((0, 9), np.int64))(f)
        for name in ("concept", "intersection", "area", "concept_area")
    ],
    "an origin of other types everywhere": put(
        EFFECTS + "origin",
        np.bytes_('{"by": 3, "truth": [], "how": {}, "data": "x", "network": null, "command": 1e999}'),
    ),
    "an origin of nothing": put(EFFECTS + "origin", np.bytes_("{}")),
    "scores and intervals of which nothing is known": lambda f: [
        f[EFFECTS + name].__setitem__(..., np.nan) for name in ("score", "score_without", "low", "high")
    ],
    "scores and intervals that are infinite or at the limits of float32": lambda f: [
        f[EFFECTS + name].__setitem__(..., value)
        for name, value in (("score", -3.4e38), ("score_without", 3.4e38), ("low", -np.inf), ("high", np.inf))
    ],
    "effects of classes without images": lambda f: [
        f[EFFECTS + name].__setitem__(..., 0) for name in ("images", "hits", "false", "hits_without", "false_without")
    ],
    "no ablation at all": lambda f: [
        put(EFFECTS + name, np.zeros((2, 0, 5) if "with" in name or name in ("low", "high") else 0, kind))(f)
        for name, kind in (
            *(("unit", "i4"), ("unit_end", "i8"), ("hits_without", "u4"), ("false_without", "u4")),
            *((name, "f4") for name in ("score_without", "low", "high")),
        )
    ],
    "weights at the limits of float32": entry(LAYER + "head/weight", ..., np.float32(3.4e38)),
    "classes without names": put("classes/name", np.full(5, b"")),
    "no top image at all": entry(LAYER + "top/image", ..., -1),
    "integers of other sizes": lambda f: (
        put("concepts/number", f["concepts/number"][()].astype(np.uint64))(f),
        put(LAYER + "dead", f[LAYER + "dead"][()].astype(np.int16))(f),
        put(LAYER + "top/image", f[LAYER + "top/image"][()].astype(np.int8))(f),
    ),
    "floats of other sizes, big-endian": lambda f: (
        put(LAYER + "threshold", f[LAYER + "threshold"][()].astype(">f4"))(f),
        put(LAYER + "top/map", f[LAYER + "top/map"][()].astype(np.float64))(f),
    ),
    "counts that are chunked and packed": lambda f: put(
        LAYER + "counts/intersection", f[LAYER + "counts/intersection"][()], chunks=(1, 3, 9), compression="gzip"
    )(f),
}


@pytest.mark.parametrize("what", HARMLESS)
def test_content_that_is_odd_but_can_be(tmp_path: Path, what: str) -> None:
    assert visit(changed(tmp_path / "a.nd.h5", HARMLESS[what])) == 15


# --- larger on paper than in the file, and places outside the file --------------------------------------------------


def empty(name: str, shape: tuple[int, ...], dtype: object, **options: object) -> Change:
    return put(name, None, shape=shape, dtype=dtype, **options)


def many_concepts(f: h5py.File) -> None:
    n = 1 << 33
    for name, dtype in (("number", "i4"), ("category", "i4"), ("name", "S99")):
        empty(f"concepts/{name}", (n,), dtype, chunks=(1 << 20,), compression="gzip")(f)


def no_concepts_many_units(f: h5py.File) -> None:
    for name, dtype in (("number", "i4"), ("category", "i4"), ("name", "S9"), ("categories", "S9")):
        empty(f"concepts/{name}", (0,), dtype)(f)
    for name in ("area", "images"):
        empty(f"concepts/{name}", (1, 0), "i8")(f)
    for name in ("concept", "intersection", "area"):
        empty(f"{LAYER}best/{name}", (1 << 32, 0), "i8")(f)


def zip_bomb(f: h5py.File) -> None:
    """Maps of 16 GB for each of 12 images; one chunk of 2 MB is there, packed to 2 kB."""
    empty("images/label_maps", (12, 1 << 26, 12, 10), "u2", chunks=(1, 1 << 13, 12, 10), compression="gzip")(f)
    f["images/label_maps"][0, : 1 << 13] = 0


PAPER: dict[str, Change] = {
    "contiguous, nothing written": empty("concepts/area", (1, 9), "i8"),
    "packed, nothing written": empty("concepts/area", (1, 9), "i8", chunks=(1, 9), compression="gzip"),
    "chunked, nothing written": empty(LAYER + "counts/intersection", (1, 9, 9), "i8", chunks=(1, 9, 9)),
    "8 billion concepts": many_concepts,
    "4 billion units": no_concepts_many_units,
    "more label maps than fit a disk": zip_bomb,
}


@pytest.mark.parametrize("what", PAPER)
def test_larger_on_paper_than_in_the_file(tmp_path: Path, what: str) -> None:
    refused(changed(tmp_path / "a.nd.h5", PAPER[what]), "is larger on paper than in the file")


def test_a_filter_that_a_store_does_not_use(tmp_path: Path) -> None:
    change = put("concepts/number", np.arange(1, 10), compression="lzf")
    refused(changed(tmp_path / "a.nd.h5", change), "concepts/number is packed by a filter")


def link(name: str, to: object) -> Change:
    return lambda f: (f.move(name, "moved"), f.__setitem__(name, to))


def virtual(f: h5py.File) -> None:
    del f["concepts/area"]
    layout = h5py.VirtualLayout((1, 9), "i8")
    layout[:] = h5py.VirtualSource("other.nd.h5", "concepts/area", (1, 9))
    f.create_virtual_dataset("concepts/area", layout)


def link_in_a_name(f: h5py.File) -> None:
    f["layers/far"] = h5py.ExternalLink("other.nd.h5", "/layers")
    put("layer_names", np.array([b"far/features.0"]))(f)


OUTSIDE: dict[str, Change] = {
    "a soft link": link("concepts/area", h5py.SoftLink("/moved")),
    "a dangling soft link": link("concepts/area", h5py.SoftLink("/nowhere")),
    "a soft link to a group": link("layers", h5py.SoftLink("/moved")),
    "a soft link to an optional group": link(LAYER + "counts", h5py.SoftLink("/moved")),
    "a dangling link to an optional group": link("images", h5py.SoftLink("/nowhere")),
    "an external link": link("concepts/area", h5py.ExternalLink("other.nd.h5", "/concepts/area")),
    "an external link to a group": link("layers", h5py.ExternalLink("other.nd.h5", "/layers")),
    "an external link in a layer's name": link_in_a_name,
    "a path for a layer's name": put("layer_names", np.array([b"/layers/features.0"])),
    "a virtual dataset": virtual,
    "external storage": put("concepts/area", None, shape=(1, 9), dtype="i8", external=[("raw", 0, 72)]),
}


@pytest.mark.parametrize("what", OUTSIDE)
def test_nothing_outside_the_file_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    monkeypatch.chdir(tmp_path)
    write_small(tmp_path / "other.nd.h5")
    (tmp_path / "raw").write_bytes(bytes(1 << 12))
    error = refused(changed(tmp_path / "a.nd.h5", OUTSIDE[what]))
    assert any(w in error.message for w in ("is a link to somewhere else", "refers to another file", "is missing"))


# --- random damage: in a process of its own, for what HDF5 itself might do -------------------------------------------

READER = """
import resource, sys
from pathlib import Path
from ndissect.store.errors import NDError
from store_factory import visit
resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))
for line in sys.stdin:
    try:
        visit(Path(line[:-1]))
        print("valid", flush=True)
    except NDError as e:
        print("refused", flush=True)
    except BaseException as e:
        print(f"{type(e).__name__}: {e}".replace(chr(10), " "), flush=True)
"""


class Reader:
    """Looks at stores in another process, which may crash or hang."""

    def __init__(self) -> None:
        command = [sys.executable, "-W", "error", "-c", READER]
        environment = os.environ | {"PYTHONPATH": str(Path(__file__).parent)}
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )

    def __call__(self, path: Path) -> str:
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin
        assert stdout
        stdin.write(f"{path}\n")
        stdin.flush()
        if not select.select([stdout], [], [], 20)[0]:
            self.close()
            return "a hang"
        return stdout.readline().strip() or f"a crash ({self._process.wait()})"

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()


@pytest.fixture(scope="module")
def reader() -> Iterator[Reader]:
    started = Reader()
    yield started
    started.close()


def damaged(good: bytes, kind: str, seed: int) -> bytes:
    rng, data = random.Random(seed), bytearray(good)
    for _ in range(rng.choice([1, 1, 2, 5, 30])):
        at, n = rng.randrange(len(data)), rng.choice([1, 2, 8, 64])
        there = bytes(data[at : at + n])
        source = rng.randrange(len(data))
        data[at : at + n] = {
            "flip": bytes([there[0] ^ (1 << rng.randrange(8)), *there[1:]]),
            "zero": bytes(len(there)),
            "ones": b"\xff" * len(there),
            "noise": rng.randbytes(len(there)),
            "copy": bytes(data[source : source + len(there)]).ljust(len(there), b"\0"),
            "cut": there,
        }[kind]
        if kind == "cut":
            del data[max(at, 1) :]
    return bytes(data)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(kind=st.sampled_from(["flip", "zero", "ones", "noise", "copy", "cut"]), seed=st.integers(0, 2**32))
def test_random_damage_gives_a_valid_answer_or_one_clear_error(
    tmp_path: Path, good: bytes, reader: Reader, kind: str, seed: int
) -> None:
    path = tmp_path / "a.nd.h5"
    path.write_bytes(damaged(good, kind, seed))
    assert reader(path) in ("valid", "refused")


# --- locked ---------------------------------------------------------------------------------------------------------

HOLDER = """
import sys, h5py
with h5py.File(sys.argv[1], "r+", locking=True) as f:
    print("open", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def held(tmp_path: Path) -> Iterator[Path]:
    """A store that another process has open for writing."""
    path = write_small(tmp_path / "a.nd.h5")
    environment = {k: v for k, v in os.environ.items() if k != "HDF5_USE_FILE_LOCKING"}
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(path)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment,
    )  # fmt: skip
    assert holder.stdout
    assert holder.stdout.readline() == "open\n"
    yield path
    holder.communicate("")


def read_in_a_process(path: Path, setting: str | None) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if k != "HDF5_USE_FILE_LOCKING"}
    if setting is not None:
        environment["HDF5_USE_FILE_LOCKING"] = setting
    command = [Path(sys.executable).with_name("nd"), "inspect", "features.0", "-s", path, "--json"]
    return subprocess.run(command, capture_output=True, text=True, env=environment)


@pytest.mark.parametrize("setting", [None, "FALSE"])
def test_a_store_that_another_program_has_open_is_read_without_a_lock(held: Path, setting: str | None) -> None:
    done = read_in_a_process(held, setting)
    assert done.returncode == 0, done.stderr
    assert len(json.loads(done.stdout)["units"]) == 9


@pytest.mark.parametrize("setting", ["TRUE", "BEST_EFFORT"])
def test_where_locks_are_demanded_the_message_names_the_setting(held: Path, setting: str) -> None:
    done = read_in_a_process(held, setting)
    assert done.returncode == 1
    what, hint = done.stderr.splitlines()
    assert f"{held} is locked by another program" in what
    assert "errno 11" in what
    assert f"HDF5_USE_FILE_LOCKING is {setting}: set it to FALSE" in hint
