"""What starting ``nd`` costs: which modules a command imports; and the help, the version, the completion."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path

import cli
import pytest

from ndissect.tui.cli.commands import COMMANDS, load

HEAVY = {"torch", "torchvision", "numpy", "h5py", "rich", "textual", "PIL"}

# Runs nd as its executable does, then tells which of the modules it imported.
WATCH = """
import atexit, sys
atexit.register(lambda: print("imported:", *sys.modules, file=sys.stderr))
from ndissect.tui.cli.main import main
sys.argv[0] = "nd"
main()
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return cli.workplace(tmp_path_factory.mktemp("place") / "work")


def imported(*args: str, place: Path) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-c", WATCH, *args],
        cwd=place,
        env=cli.environment(place),
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=60,
    )
    assert done.returncode in (0, 2), done.stderr
    told = done.stderr.splitlines()[-1]
    assert told.startswith("imported: ")
    return set(told.removeprefix("imported: ").split())


def all_imported(commands: Iterable[tuple[str, ...]], place: Path) -> list[set[str]]:
    return cli.in_parallel(lambda args: imported(*args, place=place), commands)


def test_help_imports_typer_alone(place: Path) -> None:
    commands = (("--help",), ("--version",), ("inspect", "--help"), ("dissect", "--help"), ("data", "--help"))
    for args, modules in zip(commands, all_imported(commands, place), strict=True):
        assert not modules & HEAVY, args


def test_look_ups_import_the_store_alone(place: Path) -> None:
    commands = (
        ("inspect", "units"),
        ("inspect", "units:1", "--json"),
        ("concepts",),
        ("export", "units"),
        ("compare", "units", "deep.pool"),
    )
    for args, modules in zip(commands, all_imported(commands, place), strict=True):
        assert "h5py" in modules
        assert not modules & (HEAVY - {"numpy", "h5py"}), args


def test_overlays_reports_and_data_sets_need_no_torch(place: Path) -> None:
    reports = (("report", "units"), ("export", "units", "--format", "milan", "-o", "exemplars"))
    commands = (("overlay", "units:0"), *reports, *(("data", what, "small") for what in ("info", "check", "pack")))
    for args, modules in zip(commands, all_imported(commands, place), strict=True):
        assert not modules & {"torch", "torchvision", "textual"}, args


def test_mistakes_are_found_before_torch_is_imported(place: Path) -> None:
    commands = (
        ("dissect", "net.py:network", "--data", "gone"),
        ("dissect", "net.py:network", "--data", "small", "--protocol", "netdisect"),
        ("dissect", "net.py:network", "--data", "small", "--grid", "0"),
        ("dissect", "net.py:network", "--data", "small", "-o", "net-small.nd.h5"),
        ("dissect", "net.py:network", "--data", "small", "-o", "gone/x.nd.h5"),
        ("dissect", "net.py:network", "--data", "small", "--size", "big"),
        ("dissect", "gone.py:network", "--data", "small"),
        ("dissect", "net.py:network", "--data", "small", "--weights", "gone.pt"),
        ("layers", "net.py:network", "--input-size", "big"),
    )
    for args, modules in zip(commands, all_imported(commands, place), strict=True):
        assert "torch" not in modules, args


def test_a_run_imports_of_torch_only_what_torch_itself_imports(place: Path, tmp_path: Path) -> None:
    """Neither its compiler nor what several processes need, nor torchvision: each takes as long as torch or longer."""
    torch = set(subprocess.check_output([sys.executable, "-c", "import sys, torch; print(*sys.modules)"]).split())
    store = tmp_path / "by-file.nd.h5"
    commands = (
        ("dissect", "net.py:Net", "--data", "small", "-l", "units", "--mean", "0,0,0", "-o", str(store)),
        ("layers", "net.py:Net", "--size", "96"),
        ("layers", "net.py:network", "--input-size", "64"),
    )
    runs = all_imported(commands, place)
    assert store.exists()
    for args, modules in zip(commands, runs, strict=True):
        more = modules - {m.decode() for m in torch}
        assert "ndissect.engine.networks.layers" in more, args
        assert {m for m in more if m.partition(".")[0] in ("torch", "torchvision", "sympy")} == set(), args


def test_torchvision_is_imported_without_torchs_compiler(place: Path) -> None:
    """For a network of torchvision's, and for a name that is looked for among them."""
    commands = (("layers", "torchvision:squeezenet1_1@none"), ("layers", "squeezenet"))
    for args, modules in zip(commands, all_imported(commands, place), strict=True):
        assert "torchvision" in modules, args
        assert not {"torch._dynamo", "sympy"} & modules, args


def test_torchs_compiler_is_there_for_who_uses_it() -> None:
    """What torchvision asks of it is answered later, and anything else at once."""
    script = """
import sys
from ndissect.engine.machine.torchvision_import import without_compiler
with without_compiler():
    from torchvision.ops import roi_align
    compiler = sys.modules["torch._dynamo.utils"]
    assert "torch._dynamo" not in sys.modules
assert "torch._dynamo.utils" not in sys.modules
answer = sys.modules["torchvision.ops.roi_align"].is_compile_supported("cpu")
import torch._dynamo.utils as real
assert answer is real.is_compile_supported("cpu")
assert compiler is not real and compiler.counters is real.counters
with without_compiler():
    assert sys.modules["torch._dynamo.utils"] is real
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=120)


# Help, version, completion


def test_the_version_is_the_installed_one(place: Path) -> None:
    done = cli.nd("--version", folder=place)
    assert (done.returncode, done.stdout) == (0, f"nd (ndissect) {version('ndissect')}\n")


def test_the_help_lists_the_commands_with_examples_a_line_each(place: Path) -> None:
    for flag in ("--help", "-h"):
        done = cli.nd(flag, folder=place)
        assert (done.returncode, done.stderr) == (0, "")
    lines = [line.strip() for line in done.stdout.splitlines()]
    assert any(line.startswith("nd dissect  ") for line in lines), done.stdout
    assert any(line.startswith("nd inspect layer4  ") for line in lines), done.stdout
    assert any(line.startswith("nd browse  ") for line in lines), done.stdout
    for command in (
        "dissect",
        "layers",
        "inspect",
        "browse",
        "concepts",
        "overlay",
        "export",
        "import",
        "doctor",
        "data",
    ):
        assert any(line.startswith(f"{command} ") for line in lines), command
    assert max(map(len, done.stdout.splitlines())) <= 80


def test_the_list_of_commands_says_what_their_own_help_says() -> None:
    for name, entry in COMMANDS.items():
        help_of_it = load(name).help or ""
        assert " ".join(help_of_it.split()).startswith(entry.says), name


def test_one_command_imports_no_other(place: Path) -> None:
    script = "import sys; from ndissect.tui.cli.main import main\ntry: main()\nfinally: print(*sys.modules)"
    command = [sys.executable, "-c", script, "status"]
    done = subprocess.run(command, cwd=place, env=cli.environment(place), capture_output=True, text=True, timeout=60)
    modules = set(done.stdout.split())
    others = {f"ndissect.tui.cli.{entry.at.partition(':')[0]}" for name, entry in COMMANDS.items() if name != "status"}
    assert "ndissect.tui.cli.status" in modules
    assert not modules & others


def test_no_command_gets_the_help(place: Path) -> None:
    for args in ((), ("data",)):
        done = cli.nd(*args, folder=place)
        assert done.returncode == 2
        assert "Usage: nd" in done.stdout + done.stderr
        assert "Commands:" in done.stdout + done.stderr


def completions(place: Path, *words: str) -> list[str]:
    """What bash offers for the last of ``words``, by the script that ``nd --show-completion`` prints."""
    script = """
        source <(nd --show-completion)
        COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1))
        function_of_nd=$(complete -p nd | sed 's/.*-F \\([^ ]*\\).*/\\1/')
        $function_of_nd nd "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD-1]}"
        printf '%s\\n' "${COMPREPLY[@]}"
    """
    done = subprocess.run(
        ["bash", "--norc", "-c", script, "bash", "nd", *words],
        cwd=place,
        env=cli.environment(place) | {"SHELL": "/bin/bash"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return [word.strip() for word in done.stdout.split()]


def test_the_shell_completes_commands_options_values_and_layers(place: Path) -> None:
    asked = [
        ("insp",),
        ("data", ""),
        ("inspect", "--m"),
        ("inspect", "--sort", ""),
        ("inspect", "d"),
        ("overlay", "un"),
    ]
    command, data, option, sort, layer, unit = cli.in_parallel(lambda words: completions(place, *words), asked)
    assert command == ["inspect"]
    assert set(data) == {"init", "info", "check", "images", "show", "merge", "agree", "download", "pack"}
    assert "--min-iou" in option
    assert {"iou", "unit", "label", "report"} <= set(sort)
    assert layer == ["deep.pool"]
    assert unit == ["units"]
