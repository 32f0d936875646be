"""Pickles of weights: whatever a file asks for, nothing of it is run, and what comes out is tensors or an error."""

from __future__ import annotations

import collections
import io
import json
import pickle
import random
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from attempts import attempt
from hypothesis import given, settings
from hypothesis import strategies as st

from ndissect.engine.checkpoints.limits import Limit
from ndissect.engine.checkpoints.read import load_state
from ndissect.engine.checkpoints.unpickler import Broken, CodeInFile, read_pickle
from ndissect.store.errors import NDError

MAGIC = b"".join(pickle.dumps(part, 2) for part in (0x1950A86A20F9469CFC6C, 1001, {}))


def text(value: str) -> bytes:
    data = value.encode()
    return b"X" + struct.pack("<I", len(data)) + data


def named(module: str, name: str) -> bytes:
    return f"c{module}\n{name}\n".encode()


def stacked(module: str, name: str) -> bytes:
    return text(module) + text(name) + b"\x93"


TOUCH = "touch RAN"
# Each is the instructions of a value; run by Python's own unpickler, those with a command would touch the file RAN.
ATTACKS: dict[str, bytes] = {
    "REDUCE": named("os", "system") + text(TOUCH) + b"\x85R",
    "REDUCE of posix": named("posix", "system") + text(TOUCH) + b"\x85R",
    "STACK_GLOBAL": stacked("os", "system") + text(TOUCH) + b"\x85R",
    "a dotted name": stacked("torch.serialization", "os.system") + text(TOUCH) + b"\x85R",
    "a dotted name of a library": stacked("torch._utils", "sys.modules") + b")R",
    "INST": b"(" + text(TOUCH) + b"ios\nsystem\n",
    "OBJ": b"(" + named("subprocess", "getoutput") + text(TOUCH) + b"o",
    "NEWOBJ": named("subprocess", "Popen") + text(TOUCH) + b"\x85\x81",
    "NEWOBJ_EX": named("subprocess", "Popen") + b")}" + text("args") + text(TOUCH) + b"s\x92",
    "eval": named("builtins", "eval") + text("open('RAN', 'w')") + b"\x85R",
    "eval of Python 2": named("__builtin__", "eval") + text("open('RAN', 'w')") + b"\x85R",
    "exec by getattr": named("builtins", "getattr") + named("builtins", "__import__") + text("x") + b"\x86R",
    "getattr of a module": named("builtins", "getattr") * 2 + named("torch", "serialization") + text("os") + b"\x86R"
    + text("system") + b"\x86R" + text(TOUCH) + b"\x85R",
    "a hub": named("torch.hub", "load") + text("RAN/RAN") + text("RAN") + b"\x86R",
    "a partial": named("functools", "partial") + named("torch.jit", "load") + text("RAN") + b"\x86R)R",
    "a file": named("pathlib", "Path.touch") + named("pathlib", "Path") + text("RAN") + b"\x85R\x85R",
    "a state": named("torch.nn", "Module") + b")R}" + text("__setstate__") + named("torch.hub", "load") + b"sb",
    "the state of a class": named("collections", "OrderedDict") + b"N}" + text("update") + text("x") + b"s\x86b",
    "an extension": b"\x82\x01)R",
    "an identifier": b"(" + text("storage") + named("torch.hub", "load") + text("0") + text("cpu") + b"K\x01tQ",
    "an identifier of text": b"PRAN\n",
    "a rebuilt tensor": named("torch._tensor", "_rebuild_from_type_v2") + b"(" + named("torch.hub", "load")
    + named("torch", "Tensor") + text("RAN") + b"\x85Nt\x52",
    "an array of objects": named("numpy.core.multiarray", "_reconstruct") + named("numpy", "ndarray")
    + b"K\x00\x85C\x01b\x87R(K\x01K\x01\x85" + named("numpy", "dtype") + text("O") + b"\x85R\x89](" + b"Netb",
    "a numpy file": named("numpy", "load") + text("RAN") + b"\x85R",
    "itself": b"]q\x00h\x00a",
    "a name in a name": stacked("collections", "OrderedDict.__init__.__globals__") + b")R",
    "memory tricks": b"K\x01q\x05h\x05r\xff\xff\xff\xffj\xff\xff\xff\xff",
    "a long name": named("os" * 50_000, "system") + b")R",
}  # fmt: skip


def bare(value: bytes) -> bytes:
    return b"\x80\x04" + value + b"."


def row(value: bytes) -> bytes:
    """A file of torch before 1.6 whose object is ``value``."""
    return MAGIC + bare(value) + pickle.dumps([], 2)


def archive(value: bytes) -> bytes:
    """A file of torch.save whose object is ``value`` beside a tensor's weights."""
    whole = io.BytesIO()
    torch.save({"a": torch.zeros(1)}, whole)
    out = io.BytesIO()
    with zipfile.ZipFile(whole) as stored, zipfile.ZipFile(out, "w") as packed:
        for member in stored.infolist():
            own = member.filename.endswith("data.pkl")
            packed.writestr(member.filename, bare(value) if own else stored.read(member))
    return out.getvalue()


def beside(value: bytes) -> bytes:
    """``value`` in a dictionary beside a state dict of one tensor."""
    tensor = (
        named("torch._utils", "_rebuild_tensor_v2") + b"((" + text("storage") + named("torch", "FloatStorage")
        + text("0") + text("cpu") + b"K\x01tQK\x00K\x01\x85K\x01\x85\x89}tR"
    )  # fmt: skip
    return b"}(" + text("state_dict") + b"}" + text("a") + tensor + b"s" + text("x") + value + b"u"


# What hypothesis and the random files below are made of.
PIECES = (
    *ATTACKS.values(), b"(", b"0", b"1", b"2", b"N", b"\x88", b"]", b"}", b")", b"\x8f", b"K\x07", b"C\x01a", b"t",
    b"l", b"d", b"\x85", b"\x86", b"\x87", b"a", b"e", b"s", b"u", b"\x90", b"\x91", b"R", b"\x81", b"\x92", b"b", b"o",
    b"Q", b"q\x00", b"h\x00", b"\x94", b"\x93", b"\x97", b"\x98", b".", b"F1\n", b"Vx\n", b"L5L\n", text("a"),
    text("storage"),     named("torch._utils", "_rebuild_tensor_v2"),
    named("torch", "FloatStorage"), named("collections", "OrderedDict"),
    named("torch._utils", "_rebuild_parameter"), named("torch", "Size"), named("numpy", "dtype"), beside(b"N"),
    named("numpy._core.numeric", "_frombuffer"), named("_codecs", "encode"), text("latin1"), b"\x8a\x09" + b"\xff" * 9,
)  # fmt: skip

WATCHED = """
import encodings.cp437, encodings.raw_unicode_escape  # those of member names and of old texts
import json, sys
from pathlib import Path

from ndissect.engine.checkpoints.read import load_state
from ndissect.store.errors import NDError

KINDS = ("import", "exec", "compile", "os.", "subprocess.", "socket.", "shutil.", "ctypes.", "pickle.", "urllib.",
         "tempfile.", "marshal.", "code.", "sys._getframe", "object.__setattr__", "open")
seen, watching = [], False

def watch(event, args):
    if watching and event.startswith(KINDS):
        if event == "open" and (args[1] in ("r", "rb", None) and not (args[2] or 0) & 3):
            return
        seen.append((event, str(args)[:200]))

sys.addaudithook(watch)
said = {"ended": {}, "seen": seen}
files = sorted(Path(sys.argv[1]).iterdir())
for file in [*files[:3], *files]:  # what is imported late is imported by the first ones
    try:
        state = load_state(file)
        kind = "tensors" if {type(v).__name__ for v in state.values()} == {"Tensor"} else "others"
    except NDError:
        kind = "error"
    except BaseException as e:
        kind = f"{type(e).__name__}: {e}"
    said["ended"][file.name] = kind
    watching = len(said["ended"]) >= 3
watching = False
print(json.dumps(said))
"""


def random_value(rng: random.Random) -> bytes:
    return b"".join(rng.choice(PIECES) for _ in range(rng.randrange(1, 25)))


def mutated(data: bytes, rng: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.randrange(1, 8)):
        at = rng.randrange(len(changed))
        if rng.random() < 0.5:
            changed[at] = rng.randrange(256)
        elif rng.random() < 0.5:
            del changed[at : at + rng.randrange(1, 6)]
        else:
            changed[at:at] = rng.choice(PIECES)[:100]
    return bytes(changed)


def honest(old: bool, protocol: int) -> bytes:
    out = io.BytesIO()
    state = {"a": torch.rand(2, 3).t(), "b": torch.nn.Parameter(torch.rand(2)), "n": torch.tensor(3)}
    content = {"state_dict": state, "epoch": 3, "date": pickle, "args": random.Random(1)}
    del content["date"]
    torch.save(content, out, pickle_protocol=protocol, _use_new_zipfile_serialization=not old)
    return out.getvalue()


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, str] | list[list[str]]]:
    """How the reading of each hostile file ended, and which events of Python's audit were seen meanwhile."""
    folder = tmp_path_factory.mktemp("hostile")
    files = folder / "files"
    files.mkdir()
    rng = random.Random(5)
    sound = {f"{kind}{p}": honest(kind == "old", p) for kind in ("new", "old") for p in (2, 3, 4, 5)}
    for name, data in sound.items():
        (files / f"0 honest {name}").write_bytes(data)
    for name, value in ATTACKS.items():
        for wrap in (bare, row, archive):
            (files / f"1 {name} {wrap.__name__}").write_bytes(wrap(value))
            (files / f"2 {name} {wrap.__name__} beside").write_bytes(wrap(beside(value)))
    for i in range(400):
        wrap = rng.choice((bare, row, archive))
        (files / f"3 random {i}").write_bytes(wrap(random_value(rng)))
        (files / f"4 mutated {i}").write_bytes(mutated(rng.choice(list(sound.values())), rng))
    done = subprocess.run(
        [sys.executable, "-c", WATCHED, str(files)], cwd=folder, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert not (folder / "RAN").exists()
    return json.loads(done.stdout)  # type: ignore[no-any-return]


def test_reading_any_file_runs_imports_and_writes_nothing(watched: dict[str, list[list[str]]]) -> None:
    assert watched["seen"] == []


def test_any_file_ends_as_tensors_or_an_error(watched: dict[str, dict[str, str]]) -> None:
    assert set(watched["ended"].values()) == {"tensors", "error"}
    assert {kind for name, kind in watched["ended"].items() if name.startswith("0 honest")} == {"tensors"}


def test_weights_beside_an_unknown_object_are_read_and_beside_a_program_refused(
    watched: dict[str, dict[str, str]],
) -> None:
    ended = watched["ended"]
    harmful = {"REDUCE", "REDUCE of posix", "STACK_GLOBAL", "INST", "OBJ", "NEWOBJ", "NEWOBJ_EX", "eval"}
    assert {ended[f"2 {name} archive beside"] for name in harmful} == {"error"}
    inert = ("a dotted name", "getattr of a module", "a hub", "a partial", "a file", "a state", "an extension")
    assert {ended[f"2 {name} archive beside"] for name in inert} == {"tensors"}, inert


def test_the_attacks_are_some(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("REDUCE", "STACK_GLOBAL", "a dotted name", "getattr of a module", "INST", "eval", "a file"):
        pickle.loads(bare(ATTACKS[name]))
        assert (tmp_path / "RAN").exists(), name
        (tmp_path / "RAN").unlink()


@settings(max_examples=300, deadline=None)
@given(st.lists(st.one_of(st.sampled_from(PIECES), st.binary(max_size=12)), max_size=30))
def test_any_instructions_make_plain_data_or_an_error(pieces: list[bytes]) -> None:
    try:
        value, _ = read_pickle(io.BytesIO(bare(b"".join(pieces))), Limit(Path("w.pt"), 1 << 20))
    except (Broken, CodeInFile, NDError, RecursionError):
        return
    waiting, seen = [value], set()
    while waiting:
        part = waiting.pop()
        assert type(part).__module__ in ("builtins", "ndissect.engine.checkpoints.values",
                                         "ndissect.engine.checkpoints.arrays"), part  # fmt: skip
        assert type(part) in (int, float, bool, str, bytes, list, tuple, dict, type(None)) or not callable(part)
        if isinstance(part, list | tuple | dict) and id(part) not in seen:
            seen.add(id(part))
            waiting += part.values() if isinstance(part, dict) else part


leaves = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text(max_size=5), st.binary(max_size=5)
)
plain = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.lists(inner, max_size=4).map(tuple),
        st.dictionaries(st.one_of(st.text(max_size=4), st.integers(0, 99)), inner, max_size=4),
        st.dictionaries(st.text(max_size=4), inner, max_size=4).map(collections.OrderedDict),
        st.binary(max_size=4).map(bytearray),
    ),
    max_leaves=12,
)


@settings(max_examples=200, deadline=None)
@given(plain, st.integers(0, 5), st.binary(max_size=3))
def test_plain_data_comes_back_as_it_was(value: object, protocol: int, behind: bytes) -> None:
    file = io.BytesIO(pickle.dumps(value, protocol) + behind)
    assert read_pickle(file, Limit(Path("w.pt"), 1 << 20))[0] == value
    assert file.read() == behind


def copied(function: bytes, argument: bytes, times: int) -> bytes:
    """The tuple ``argument``, and ``times`` calls with it."""
    return argument + b"q\x010](" + (function + b"h\x01R") * times + b"e"


ENTRIES = b"}(" + b"".join(text(f"{i:05}") + b"N" for i in range(20_000)) + b"u"
LARGE = {
    "texts": copied(named("_codecs", "encode"), text("x" * 200_000) + text("latin1") + b"\x86", 20_000),
    "dictionaries": copied(named("collections", "OrderedDict"), ENTRIES + b"\x85", 20_000),
    "a deep key": b"K\x01" + b"\x85" * 100_000 + b"q\x000}h\x00K\x01s",
    "a text of 2 GB": b"X\xff\xff\xff\x7f",
    "a text of exabytes": b"\x8d" + b"\xff" * 7 + b"\x7f",
    "a memory of billions": b"r\xff\xff\xff\xff",
}


@pytest.mark.parametrize("wrap", [row, archive])
@pytest.mark.parametrize("name", LARGE)
def test_what_is_small_in_a_file_and_large_in_memory_is_refused(
    name: str, wrap: Callable[[bytes], bytes], tmp_path: Path
) -> None:
    (tmp_path / "w.pt").write_bytes(wrap(LARGE[name]))
    tried = attempt(lambda: load_state(tmp_path / "w.pt"), seconds=30)
    assert tried.error == "NDError", tried
    assert tried.peak < 400 << 20
