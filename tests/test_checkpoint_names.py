"""Which number of a checkpoint's name is its place in a series: after the word that is asked for, or told."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from ndissect.engine.experiments.checkpoint_names import is_checkpoint, numbers_in, read_numbers, same_word, stem_of
from ndissect.engine.experiments.numbered import number_checkpoints
from ndissect.engine.experiments.series import read_series
from ndissect.engine.experiments.series_stores import plan_series
from ndissect.store.errors import WrongUse

ACCURACY = ("resnet18_epoch-3_acc-0.71", "resnet18_epoch-12_acc-0.80", "resnet18_best")
LIGHTNING = ("epoch=0-step=100", "epoch=1-step=200", "last")


@pytest.mark.parametrize(
    ("names", "factor", "values"),
    [
        (ACCURACY, "epochs", (3, 12, None)),
        (ACCURACY, "epoch", (3, 12, None)),
        (ACCURACY, "Epochs", (3, 12, None)),
        (ACCURACY, "training epochs", (3, 12, None)),
        (ACCURACY, None, (3, 12, None)),
        (ACCURACY, "acc", (0.71, 0.8, None)),
        (ACCURACY, "accuracy", (0.71, 0.8, None)),
        (LIGHTNING, "epochs", (0, 1, None)),
        (LIGHTNING, "step", (100, 200, None)),
        (LIGHTNING, "global_step", (100, 200, None)),
        (("epoch5_seed1", "epoch5_seed2", "epoch10_seed1"), "epochs", (5, 5, 10)),
        (("epoch5_seed1", "epoch5_seed2", "epoch10_seed1"), "seed", (1, 2, 1)),
        (("epoch=3-step=1200-acc=0.71", "epoch=4-step=1600-acc=0.70"), "epoch", (3, 4)),
        (("iter_20k", "iter_160k", "iter_1M"), "iterations", (20e3, 160e3, 1e6)),
        (("10epochs", "20Epochs"), "epoch", (10, 20)),
        (("seed1epoch3", "seed2epoch4"), "epochs", (3, 4)),
        (("numEpoch3", "numEpoch4"), "epochs", (3, 4)),
        (("EP003", "EP012"), "epochs", (3, 12)),
        (("net-lr=1e-3", "net-lr=1e-4"), "lr", (1e-3, 1e-4)),
        (("val_loss=-0.5", "val_loss=-1.25"), "loss", (-0.5, -1.25)),
        (("epoch_3_of_epoch_10", "epoch_4_of_epoch_10"), "epochs", (3, 4)),
    ],
)
def test_the_number_is_that_of_the_word(
    names: tuple[str, ...], factor: str | None, values: tuple[float | None, ...]
) -> None:
    read = read_numbers(names, factor)
    assert read.values == values
    assert read.word == (factor or "epoch")


@pytest.mark.parametrize(
    ("names", "values", "where"),
    [
        (("checkpoint_0010", "checkpoint_0020"), (10, 20), "what follows checkpoint_"),
        (("net18_acc-0.71", "net18_acc-0.80"), (0.71, 0.8), "what follows acc-"),
        (("net_5.of_10", "net_7.of_10"), (5, 7), "what follows net_"),
        (("v2-10", "v2-9"), (10, 9), "what follows -"),
        (("a_1", "a_2", "final"), (1, 2, None), "what follows a_"),
        (("first1", "second2"), (1, 2), "the last one in the name"),
        (("a1-x4", "b2-y4"), (1, 2), "the one that is 2 from the end of the name"),
        (("only7",), (7,), "the last one in the name"),
        (("3", "12"), (3, 12), "what follows "),
    ],
)
def test_without_the_word_it_is_in_one_place_which_is_told(
    names: tuple[str, ...], values: tuple[float | None, ...], where: str
) -> None:
    read = read_numbers(names, "epochs")
    assert (read.values, read.word, read.where) == (values, "", where)


words = st.sampled_from(["epoch", "step", "acc", "seed", "loss", "resnet", "width", "fold"])
separators = st.sampled_from(["=", "-", "_", "", "."])
numbers = st.one_of(st.integers(0, 10**6).map(str), st.decimals(0, 99, places=2).map(str))


@given(
    st.lists(st.tuples(words, separators, numbers), min_size=1, max_size=5, unique_by=lambda part: part[0]),
    st.sampled_from(["-", "_", "--"]),
    st.data(),
)
def test_any_name_gives_the_number_after_each_of_its_words(
    parts: list[tuple[str, str, str]], between: str, data: st.DataObject
) -> None:
    stem = between.join(f"{word}{separator}{number}" for word, separator, number in parts)
    word, _, number = data.draw(st.sampled_from(parts))
    plural, capital = data.draw(st.booleans()), data.draw(st.booleans())
    asked = word + ("s" if plural and not word.endswith("s") else "")
    assert read_numbers([stem], asked.upper() if capital else asked).values == (float(number),)


@given(st.text(max_size=30), st.text(max_size=10))
def test_any_text_is_a_name(stem: str, word: str) -> None:
    read = read_numbers([stem, stem + "1"], word)
    assert len(read.values) == 2
    assert all(value is None or np.isfinite(value) for value in read.values)


@given(st.text(min_size=3, max_size=8), st.text(min_size=3, max_size=8))
def test_words_are_the_same_both_ways(one: str, other: str) -> None:
    assume(one != other)
    assert same_word(one, other) == same_word(other, one)


def test_every_usual_suffix_is_one_of_checkpoints() -> None:
    for name in ("a.pt", "a.pth", "a.pth.tar", "a.ckpt", "a.safetensors", "A.PTH.TAR"):
        assert is_checkpoint(name)
        assert stem_of(name).lower() == "a"
    assert not is_checkpoint("a.tar")
    assert not is_checkpoint("a.txt")
    assert [n.before for n in numbers_in("epoch=3-step=1200")] == ["epoch=", "-step="]


# Files


def files(folder: Path, *names: str) -> list[Path]:
    for name in names:
        (folder / name).touch()
    return [folder / name for name in names]


def test_files_without_a_number_are_left_out_and_named(tmp_path: Path) -> None:
    paths = files(tmp_path, *(f"{stem}.pth" for stem in ACCURACY))
    numbered = number_checkpoints(paths, "epochs")
    assert numbered.numbers == [(paths[0], 3), (paths[1], 12)]
    assert (numbered.title, numbered.axis) == ("epochs", "epochs")
    assert numbered.notes == ("1 without such a number left out: resnet18_best.pth",)


def test_a_checkpoint_says_itself_how_far_it_was(tmp_path: Path) -> None:
    paths = files(tmp_path, "epoch=0.ckpt", "epoch=1.ckpt")
    for name, entries in (("last.ckpt", {"epoch": 7, "global_step": 900}), ("odd.ckpt", {"epoch": "x"})):
        torch.save({"state_dict": {"a": torch.zeros(1)}, "best": np.float64(1), **entries}, tmp_path / name)
    paths += [tmp_path / "last.ckpt", tmp_path / "odd.ckpt"]
    numbered = number_checkpoints(paths, "epochs")
    assert numbered.numbers == [(paths[0], 0), (paths[1], 1), (paths[2], 7)]
    assert numbered.notes == (
        "by what the checkpoint itself says: last.ckpt 7",
        "1 without such a number left out: odd.ckpt",
    )
    assert number_checkpoints(paths[2:], "steps").numbers == [(paths[2], 900)]
    with pytest.raises(WrongUse, match="no number in its name"):
        number_checkpoints(paths[2:], "accuracy")


def test_equal_numbers_are_told(tmp_path: Path) -> None:
    paths = files(tmp_path, "epoch5_seed1.pt", "epoch5_seed2.pt", "epoch10_seed1.pt")
    (note,) = number_checkpoints(paths, "epochs").notes
    assert note == "several networks have the same epochs, a plot shows their mean: 5 of epoch5_seed1, epoch5_seed2"


def test_what_the_numbers_are_is_in_the_titles(tmp_path: Path) -> None:
    files(tmp_path, "checkpoint_0010.pth.tar", "checkpoint_0020.pth.tar", "last.ckpt")
    series = read_series([str(tmp_path)], "net", "epochs")
    assert [(m.name, m.factors) for m in series.members] == [
        ("checkpoint_0010", {"number": 10.0}),
        ("checkpoint_0020", {"number": 20.0}),
    ]
    told = "number: what follows checkpoint_"
    for factor, title in (("epochs", told), (None, "number"), ("checkpoint", "checkpoint")):
        plan = plan_series([str(tmp_path)], network="net", factor=factor)
        assert (plan.title, plan.factor) == (title, "number")
        assert plan.axis == ("checkpoint" if factor == "checkpoint" else told)
        assert (told in plan.notes) == (factor != "checkpoint")
        assert "1 without such a number left out: last.ckpt" in plan.notes
