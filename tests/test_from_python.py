"""What the commands do, done by a program: options in, results out, no terminal."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields
from fractions import Fraction
from pathlib import Path

import cli
import pytest

from ndissect.engine.experiments.from_options import rotate_layer, sweep_quantiles
from ndissect.engine.experiments.series_stores import dissect_series, plan_series
from ndissect.engine.machine.console import Console
from ndissect.engine.run.options import Options
from ndissect.engine.run.to_store import dissect_to_store
from ndissect.store.errors import NotReplaced, WrongUse
from ndissect.store.reader import Store
from ndissect.tui.cli.run_options import DECLARED


class Listening(Console):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def tell(self, text: str) -> None:
        self.told.append(text)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return cli.write_inputs(tmp_path_factory.mktemp("place"))


@pytest.fixture
def asked(place: Path) -> Options:
    return Options(f"{place / 'net.py'}:network", ("units",), data=str(place / "small"), quantile="0.2", device="cpu")


@pytest.fixture
def target(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path / "out.nd.h5"
    assert {path.name for path in tmp_path.iterdir()} <= {"out.nd.h5", "out"}


def test_every_option_has_a_flag_and_help() -> None:
    assert list(DECLARED) == [field.name for field in fields(Options)]
    assert all(option.help for option in DECLARED.values())


def test_options_that_are_unknown_are_refused() -> None:
    for wrong in ({"precision": "fp8"}, {"decode": "disk"}):
        with pytest.raises(WrongUse, match="is unknown"):
            Options(**wrong)


def test_a_program_has_a_store_and_is_told_of_it(asked: Options, target: Path) -> None:
    console = Listening()
    written = dissect_to_store(asked, console, output=target)
    assert written is not None
    assert (written.path, written.before) == (target, False)
    assert console.told[0].endswith("12 images, 1 layer (units), 4 units, on cpu")
    with Store(target) as store:
        assert list(store.layer_names) == ["units"]
        assert store.provenance["command"] == ""

    again = dissect_to_store(asked, console, output=target)
    assert again is not None
    assert again.before


def test_nothing_is_replaced_unless_that_is_said(asked: Options, target: Path) -> None:
    target.write_bytes(b"mine")
    with pytest.raises(NotReplaced, match="exists"):
        dissect_to_store(asked, Console(), output=target)
    assert target.read_bytes() == b"mine"
    assert dissect_to_store(asked, Console(), output=target, force=True)


def test_an_interrupt_passes_through(asked: Options, target: Path) -> None:
    class Stopping(Console):
        def stop(self) -> BaseException | None:
            return KeyboardInterrupt()

    with pytest.raises(KeyboardInterrupt):
        dissect_to_store(asked, Stopping(), output=target)
    assert not target.exists()
    saved = target.with_name(".out.nd.h5.saved")
    assert saved.is_dir()
    console = Listening()
    dissect_to_store(asked, console, output=target)
    assert not saved.exists()


def test_a_program_sweeps_and_rotates(asked: Options) -> None:
    swept = sweep_quantiles(asked, [Fraction("0.2"), Fraction("0.1")], Console())
    assert [d.protocol.q for d in swept.sweep.dissections] == [Fraction(1, 5), Fraction(1, 10)]
    rotated = rotate_layer(asked, [0, 1], Console(), seeds=1)
    assert [basis.alpha for basis in rotated.rotated.bases] == [0, 1]


def test_a_program_dissects_a_series(asked: Options, target: Path) -> None:
    folder = target.with_name("out")
    plan = plan_series([asked.network], folder=folder)
    assert dissect_series(plan, asked, Console()) == plan.paths
    assert all(path.is_file() for path in plan.paths)
