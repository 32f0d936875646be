"""The README says what the program does: its commands exist, and its figures are those of the shipped files."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest
import typer

from ndissect.store.protocol import PROTOCOLS
from ndissect.tui.cli.main import app

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
# `$ nd inspect layer4     what it does`: what follows two spaces is a remark, what follows a pipe another program's.
COMMANDS = [re.split(r"\s{2,}| \| ", line[2:])[0] for line in README.splitlines() if line.startswith("$ nd ")]


def test_there_are_commands_to_check() -> None:
    assert len(COMMANDS) > 12


@pytest.mark.parametrize("line", COMMANDS)
def test_every_command_in_the_readme_is_understood(line: str) -> None:
    command = typer.main.get_command(app)
    words = shlex.split(line)[1:]
    while hasattr(command, "commands"):
        command = command.commands[words.pop(0)]
    command.make_context("nd", words)  # raises for an option that does not exist or a value that does not fit


def test_every_command_is_in_the_readme() -> None:
    named = {shlex.split(line)[1] for line in COMMANDS}
    assert set(typer.main.get_command(app).commands) <= named


def test_the_protocols_are_those_of_the_program() -> None:
    for name, protocol in PROTOCOLS.items():
        row = next(line for line in README.splitlines() if line.startswith(f"| `{name}`"))
        assert protocol.upsampling in row
        assert f"| {protocol.quantile_over} maps |" in row
        share = str(protocol.q) if protocol.q.denominator == 999 else str(float(protocol.q))
        assert f"| {share} |" in row


def test_the_accuracy_is_that_of_the_shipped_weights() -> None:
    trained = json.loads((ROOT / "engine" / "demo" / "weights.json").read_text())
    assert f"{trained['held_out_accuracy']:.3f} over 27 scenes" in README
    assert f"precision {trained['held_out_presence_average_precision']:.3f}" in README
    assert f"{trained['held_out_images']:,} images" in README
    assert f"{trained['parameters']:,} parameters" in README


def test_linked_files_are_there() -> None:
    for target in re.findall(r"\]\((?!https?:)([^)]+)\)", README):
        assert (ROOT / target).is_file(), target
