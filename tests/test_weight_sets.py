"""Several sets of weights in a file, other objects beside them, and files in old encodings."""

from __future__ import annotations

import argparse
import collections
import datetime
import enum
import io
import json
import pathlib
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from ndissect.engine.checkpoints.read import load_state, read_checkpoint
from ndissect.engine.networks.resolve import load_network
from ndissect.store.errors import NDError, WrongUse


def weights(value: float = 1.0) -> dict[str, Tensor]:
    return {"conv.weight": torch.full((2, 3), value), "conv.bias": torch.full((2,), value)}


def saved(path: Path, content: object, **how: Any) -> Path:
    torch.save(content, path / "w.pt", **how)
    return path / "w.pt"


OPTIMIZER = {"state": {0: {"step": torch.tensor(1.0), "exp_avg": torch.ones(2)}}, "param_groups": [{"lr": 0.1}]}
NAMED_OPTIMIZER = {"state": {"conv.weight": {"exp_avg": torch.ones(2)}}, "param_groups": []}
RANDOM = {"torch": torch.get_rng_state(), "numpy": None}


@pytest.mark.parametrize(
    ("content", "key", "others"),
    [
        ({"state_dict": weights(), "state_dict_ema": weights(2)}, "state_dict", ("state_dict_ema",)),
        ({"ema": weights(2), "model": weights(), "optimizer": OPTIMIZER}, "model", ("ema",)),
        ({"model": weights(), "teacher": weights(2), "rng": RANDOM}, "model", ("teacher",)),
        ({"checkpoint": {"model": weights(), "ema": {"state_dict": weights(2)}}}, "checkpoint.model",
         ("checkpoint.ema.state_dict",)),
        ({"net": weights(), "optimizers": {"g": NAMED_OPTIMIZER, "d": OPTIMIZER}}, "net", ()),
        ({"my_own": weights(), "optimizer_states": [OPTIMIZER], "scheduler": {"base_lrs": [1]}}, "my_own", ()),
        ({"model": weights(), "model_ema": None, "loss": torch.tensor(0.5)}, "model", ()),
        ({"my_own": weights(), "scores": {"accuracy": torch.tensor(0.7)}, "rng": RANDOM}, "my_own", ()),
        ({"module": {"model": weights(), "loss": {"weight": torch.ones(3)}}}, "module.model", ("module.loss",)),
        (weights(), "", ()),
    ],
)  # fmt: skip
@pytest.mark.parametrize("old", [False, True], ids=["zip", "before 1.6"])
def test_the_usual_set_is_taken_and_the_others_are_named(
    content: object, key: str, others: tuple[str, ...], old: bool, tmp_path: Path
) -> None:
    read = read_checkpoint(saved(tmp_path, content, _use_new_zipfile_serialization=not old))
    assert (read.key, read.others) == (key, others)
    assert torch.equal(read.state["conv.weight"], weights()["conv.weight"])


def test_a_set_is_chosen_by_its_name_or_its_path(tmp_path: Path) -> None:
    file = saved(
        tmp_path, {"checkpoint": {"model": weights(), "ema": {"state_dict": weights(2)}}, "teacher": weights(3)}
    )
    for key, value in (
        ("teacher", 3),
        ("ema", 2),
        ("checkpoint.ema", 2),
        ("checkpoint.ema.state_dict", 2),
        ("state_dict", 2),
        ("checkpoint.model", 1),
        ("model", 1),
    ):
        read = read_checkpoint(file, key=key)
        assert read.state["conv.bias"][0] == value, key
        assert len(read.others) == 2
    for key, said in (("techer", "teacher"), ("optimizer", "checkpoint.model, "), ("check", "checkpoint.")):
        with pytest.raises(WrongUse, match=f"no set of weights '{key}'") as caught:
            read_checkpoint(file, key=key)
        assert said in caught.value.hint
    with pytest.raises(WrongUse, match=r"several sets of weights 'checkpoint': checkpoint\.model, checkpoint\.ema"):
        read_checkpoint(file, key="checkpoint")


def test_without_a_usual_one_the_sets_are_named(tmp_path: Path) -> None:
    file = saved(tmp_path, {"teacher": weights(), "student": weights(2), "optimizer": OPTIMIZER})
    with pytest.raises(NDError, match=r"several sets of weights: teacher, student\n") as caught:
        load_state(file)
    assert "--weights-key" in caught.value.hint
    with pytest.raises(NDError, match="no state dict: a dict with optimizer, epoch"):
        load_state(saved(tmp_path, {"optimizer": OPTIMIZER, "epoch": 3}))
    with pytest.raises(WrongUse, match="'ema'") as caught:
        read_checkpoint(saved(tmp_path, weights()), key="ema")
    assert "not in a set with a name" in caught.value.hint


# Other objects


class Colour(enum.Enum):
    RED = 1


class Config(dict[str, object]):
    """As OmegaConf's and mmcv's: a dictionary with attributes."""

    def __init__(self) -> None:
        self.depth = 50
        self["lr"] = 0.1


class Meter(collections.OrderedDict[str, object]):
    pass


class Flags:
    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = [1]


class Raising:
    def __setstate__(self, state: object) -> None:
        raise AssertionError("this ran")

    def __getstate__(self) -> dict[str, int]:
        return {"a": 1}


OTHERS = {
    "a numpy scalar": np.float64(71.3),
    "a numpy array": np.arange(3.0),
    "numpy texts": np.array(["a", "b"]),
    "objects in an array": np.array([object(), None]),
    "losses": [np.float32(1), np.float32(2)],
    "a path": pathlib.PurePosixPath("runs"),
    "a date": datetime.datetime(2020, 1, 1),
    "a difference of dates": datetime.timedelta(3),
    "arguments": argparse.Namespace(lr=0.1, path=pathlib.PurePosixPath("x")),
    "a default dictionary": collections.defaultdict(list),
    "a counter": collections.Counter("aab"),
    "an enumeration": Colour.RED,
    "a configuration": Config(),
    "a dictionary of a class": Meter(a=1),
    "slots": Flags(),
    "a state": Raising(),
    "a function": torch.nn.functional.relu,
    "a class": torch.nn.Conv2d,
    "a numpy generator": np.random.default_rng(0),
    "a complex number": [Raising(), 1 + 2j],
}


@pytest.mark.parametrize("name", OTHERS)
@pytest.mark.parametrize("protocol", [2, 5])
@pytest.mark.parametrize("old", [False, True], ids=["zip", "before 1.6"])
def test_other_objects_are_left_unread_and_named(name: str, protocol: int, old: bool, tmp_path: Path) -> None:
    content = {"state_dict": weights(), "epoch": 3, "best": OTHERS[name]}
    file = saved(tmp_path, content, pickle_protocol=protocol, _use_new_zipfile_serialization=not old)
    read = read_checkpoint(file)
    assert torch.equal(read.state["conv.weight"], weights()["conv.weight"])
    assert [what.partition(" ")[0] for what in read.unread] == ["best"]


def test_plain_values_are_not_named(tmp_path: Path) -> None:
    plain = {"a": [1, 2.5, "x", None, True, b"y"], "b": {"c": (1, {2, 3}), 4: frozenset("q")}, "optimizer": OPTIMIZER}
    assert read_checkpoint(saved(tmp_path, {"model": weights(), **plain})).unread == ()


def test_what_was_not_read_is_told_of_the_way_to_the_set_and_of_the_set(tmp_path: Path) -> None:
    inner = {"state_dict": weights() | {"_extra_state": Flags()}, "args": argparse.Namespace()}
    read = read_checkpoint(saved(tmp_path, {"model": inner, "time": datetime.date(2020, 1, 1)}))
    assert read.unread == (
        "time (datetime.date)",
        "args (argparse.Namespace)",
        f"_extra_state ({__name__}.Flags)",
    )


def test_they_are_told_to_the_user(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text("from torch import nn\ndef net():\n    return nn.Sequential(nn.Conv2d(3, 2, 1))\n")
    state = {"0.weight": torch.ones(2, 3, 1, 1), "0.bias": torch.ones(2)}
    torch.save(
        {"model": state, "ema": state, "best": np.float64(1), "when": datetime.date(2020, 1, 1)}, tmp_path / "w.pt"
    )
    network = load_network(f"{tmp_path}/net.py:net", weights=tmp_path / "w.pt")
    assert network.origin["weights_key"] == "model"
    assert any("'model' is taken; there are also ema: --weights-key chooses" in note for note in network.notes)
    assert any("best (numpy" in note and "when (datetime.date)" in note for note in network.notes)


def test_a_set_or_a_prefix_without_a_file_is_a_mistake(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text("from torch import nn\ndef net():\n    return nn.Sequential(nn.Conv2d(3, 2, 1))\n")
    for given in ({"weights_key": "ema"}, {"weights_prefix": "model"}):
        with pytest.raises(WrongUse, match="none is given"):
            load_network(f"{tmp_path}/net.py:net", **given)


class Scaled(Tensor):
    """A kind of tensor of the user's own."""


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (lambda: {"state_dict": weights() | {"conv.weight": torch.ones(2).as_subclass(Scaled)}}, "Scaled"),
        (lambda: {"model": torch.nn.Sequential(torch.nn.Linear(2, 2)), "epoch": np.float64(1)}, "Sequential"),
        (lambda: torch.nn.Conv2d(1, 1, 1), "Conv2d"),
    ],
)
def test_weights_in_an_object_are_refused_with_its_class(content: Any, named: str, tmp_path: Path) -> None:
    with pytest.raises(NDError, match="more than tensors") as caught:
        load_state(saved(tmp_path, content()))
    assert named in caught.value.message


# Encodings


def kinds() -> dict[str, Tensor]:
    base = torch.randn(4, 6)
    state = {
        "a view": base[1:3, ::2],
        "the other way": base.t(),
        "of a column": base[:, 0].expand(3, 4),
        "a number": torch.tensor(3),
        "nothing": torch.zeros(0, 4),
        "conjugate": torch.randn(3, dtype=torch.complex64).conj(),
        "negative": torch.randn(3, dtype=torch.complex64).conj().imag,
        "a parameter": torch.nn.Parameter(torch.randn(3)),
        "ключ.weight é\n": torch.ones(2),
    }
    for dtype in (torch.float16, torch.bfloat16, torch.float64, torch.int8, torch.uint8, torch.bool):
        state[str(dtype)] = torch.tensor([0.0, 1.0, 2.0]).to(dtype)
    state["an attribute"] = torch.randn(3)
    state["an attribute"].note = "x"  # type: ignore[attr-defined]
    return state


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("old", [False, True], ids=["zip", "before 1.6"])
def test_tensors_of_every_kind_are_as_torch_reads_them(protocol: int, old: bool, tmp_path: Path) -> None:
    state = kinds()
    if not old:
        state["torch.uint16"] = torch.tensor([0, 1, 65_535]).to(torch.uint16)  # which torch does not write otherwise
    file = saved(tmp_path, state, pickle_protocol=protocol, _use_new_zipfile_serialization=not old)
    right = torch.load(file, weights_only=False)
    state = load_state(file)
    assert list(state) == list(right)
    for key, value in right.items():
        assert (state[key].dtype, state[key].shape) == (value.dtype, value.shape), key
        assert torch.equal(state[key].resolve_conj().resolve_neg(), value.resolve_conj().resolve_neg()), key
    assert state["a view"].untyped_storage().data_ptr() == state["the other way"].untyped_storage().data_ptr()


def test_weights_saved_on_a_gpu_come_to_the_cpu(tmp_path: Path) -> None:
    """Their storages are named ``torch.cuda.FloatStorage`` in old files and lie on ``cuda:0`` in all."""
    out = io.BytesIO()
    torch.save(weights(), out, _use_new_zipfile_serialization=False)
    data = out.getvalue().replace(b"ctorch\nFloatStorage", b"ctorch.cuda\nFloatStorage")
    data = data.replace(b"X\x03\x00\x00\x00cpu", b"X\x06\x00\x00\x00cuda:0")
    (tmp_path / "w.pt").write_bytes(data)
    assert torch.equal(load_state(tmp_path / "w.pt")["conv.weight"], weights()["conv.weight"])


def test_pickles_of_python_2_are_read(tmp_path: Path) -> None:
    """Their texts are bytes (SHORT_BINSTRING), and so are the names of storages."""
    out = io.BytesIO()
    torch.save({"state_dict": collections.OrderedDict(weights())}, out, _use_new_zipfile_serialization=False)
    data = out.getvalue()
    for word in ("state_dict", "conv.weight", "conv.bias", "storage", "cpu"):
        long = b"X" + len(word).to_bytes(4, "little") + word.encode()
        assert long in data
        data = data.replace(long, b"U" + bytes([len(word)]) + word.encode())
    (tmp_path / "w.pth.tar").write_bytes(data)
    assert torch.equal(load_state(tmp_path / "w.pth.tar")["conv.weight"], weights()["conv.weight"])


def test_numbers_in_the_other_order_are_turned(tmp_path: Path) -> None:
    torch.save(weights(3.0), tmp_path / "w.pt")
    with zipfile.ZipFile(tmp_path / "w.pt") as stored:
        parts = {name: stored.read(name) for name in stored.namelist()}
    with zipfile.ZipFile(tmp_path / "big.pt", "w") as packed:
        for name, data in parts.items():
            turned = np.frombuffer(data, "<f4").astype(">f4").tobytes() if "/data/" in name else data
            packed.writestr(name, b"big" if name.endswith("byteorder") else turned)
    assert torch.equal(load_state(tmp_path / "big.pt")["conv.bias"], weights(3.0)["conv.bias"])


@pytest.mark.parametrize("protocol", [2, 4, 5])
@pytest.mark.parametrize("bare", [False, True], ids=["torch.save", "pickle"])
def test_a_dictionary_of_numpy_arrays_is_a_state_dict(protocol: int, bare: bool, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    arrays = {
        "plain": rng.random((2, 3), np.float32),
        "fortran": np.asfortranarray(rng.random((3, 4))),
        "big": rng.random(4).astype(">f4"),
        "whole": np.arange(6).reshape(2, 3),
        "empty": np.zeros((0, 2), np.float32),
        "number": np.array(3.0),
    }
    content = {"model": arrays, "__author__": "Caffe2"}
    if bare:
        (tmp_path / "w.pt").write_bytes(pickle.dumps(content, protocol))
    else:
        saved(tmp_path, content, pickle_protocol=protocol)
    state = load_state(tmp_path / "w.pt")
    assert list(state) == list(arrays)
    for key, value in arrays.items():
        np.testing.assert_array_equal(state[key].numpy(), value)
    with pytest.raises(NDError, match="a, a numpy array that is not of numbers"):
        load_state(saved(tmp_path, {"a": np.array(["x"])}))


def test_a_torchscript_archive_and_the_tar_form_are_named(tmp_path: Path) -> None:
    (tmp_path / "old.pt").write_bytes(b"sys_info".ljust(512, b"\0"))
    with pytest.raises(NDError, match=r"tar archive of torch before 0\.2"):
        load_state(tmp_path / "old.pt")
    with zipfile.ZipFile(tmp_path / "script.pt", "w") as packed:
        for name in ("s/data.pkl", "s/constants.pkl", "s/code/x.py"):
            packed.writestr(name, b"\x80\x02}.")
    with pytest.raises(NDError, match="a TorchScript archive") as caught:
        load_state(tmp_path / "script.pt")
    assert "torch.jit.load" in caught.value.hint


# Several files


def sharded(folder: Path, **places: object) -> Path:
    for number in (1, 2):
        state = {f"layer{number}.weight": torch.full((2,), float(number)), "x": torch.zeros(1)}
        save_file(state, folder / f"{number}.safetensors")
    index = {"layer1.weight": "1.safetensors", "layer2.weight": "2.safetensors"} | places
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": index}))
    return folder / "model.safetensors.index.json"


def test_weights_in_several_files_are_read_by_their_index(tmp_path: Path) -> None:
    read = read_checkpoint(sharded(tmp_path))
    values = {key: value.tolist() for key, value in read.state.items()}
    assert values == {"layer1.weight": [1, 1], "layer2.weight": [2, 2]}
    assert len(read.sha256) == 64
    with pytest.raises(NDError, match="Is a directory") as caught:
        load_state(tmp_path)
    assert "index.json" in caught.value.hint


@pytest.mark.parametrize(
    ("places", "said"),
    [
        ({"a": "../1.safetensors"}, "no name of a file beside it"),
        ({"a": "/etc/passwd"}, "no name of a file beside it"),
        ({"a": "model.safetensors.index.json"}, "no name of a file beside it"),
        ({"a": 3}, "no name of a file beside it"),
        ({"a": "3.safetensors"}, "1 are not beside it: 3.safetensors"),
        ({"a": "1.safetensors"}, "lacks weights that model.safetensors.index.json lists: a"),
    ],
)
def test_an_index_that_lists_something_else_is_refused(places: dict[str, object], said: str, tmp_path: Path) -> None:
    with pytest.raises(NDError, match=r"model\.safetensors\.index\.json") as caught:
        load_state(sharded(tmp_path, **places))
    assert said in caught.value.message
    with pytest.raises(NDError, match="at most 100 B are read"):
        read_checkpoint(sharded(tmp_path), 100)


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"weight_map": []}', '{"weight_map": {}}', "{" * 100_000])
def test_other_json_is_no_index(text: str, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(NDError, match=r"no index of weights|not a checkpoint"):
        load_state(tmp_path / "a.json")
