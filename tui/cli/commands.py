"""The commands of ``nd``: where each is, imported when it is asked for, and what the list of them says of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, cast

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command, get_group

from ndissect.tui.cli import machine_failures


@dataclass(frozen=True)
class Entry:
    """A command: ``at``, its module and function there (or Typer of commands); ``says``: its first sentence of help.

    ``torch``: it runs a network, or looks whether one could be run; ``settings``: more of Typer's for the command.
    """

    at: str
    says: str
    torch: bool = False
    settings: Mapping[str, Any] = field(default_factory=dict)


_BROWSE = {
    "options_metavar": "[STORE] [LAYER[:UNIT]] [OPTIONS]",
    "add_help_option": False,
    "context_settings": {"allow_extra_args": True, "ignore_unknown_options": True},
}
COMMANDS: Mapping[str, Entry] = {
    "dissect": Entry("dissect:dissect", "Dissect layers of a network over labelled images into a store.", torch=True),
    "layers": Entry(
        "layers:layers",
        "List a network's layers that can be dissected: dotted name, module, units, map size.",
        torch=True,
    ),
    "sweep": Entry(
        "sweep:sweep",
        "How labels depend on the threshold: several quantiles and IoUs from one forward pass, each exactly.",
        torch=True,
    ),
    "bench": Entry(
        "bench:bench",
        "Time a dissection beside decoding and the bare forward pass, on this machine, within a minute.",
        torch=True,
    ),
    "merge": Entry(
        "merge:merge",
        "Put the shards of one dissection together (nd dissect --shard i/n): the store that one process would write.",
        torch=True,
    ),
    "status": Entry(
        "status:status",
        "How far the runs are that write a store, here or on another machine, and what goes on with those that"
        " stopped.",
    ),
    "inspect": Entry(
        "inspect:inspect",
        "Units of a layer with their labels and IoUs; one unit's concepts; or the layers of the store.",
    ),
    "browse": Entry(
        "browse:browse", "Browse a store by keyboard: layers, units, concepts, IoUs, top images.", settings=_BROWSE
    ),
    "concepts": Entry(
        "inspect:concepts",
        "Concepts with the units that detect them; for a single concept, its best units in every layer.",
    ),
    "classes": Entry(
        "classes:classes",
        "The network's classes with the unit that each needs most; for a single class, the units that it needs.",
    ),
    "compare": Entry(
        "compare:compare",
        "Compare B with A, and C with A: detectors, labels gained and lost, units of the same number.",
    ),
    "overlay": Entry("overlay:overlay", "Draw a unit's top images, what lies outside its mask darkened."),
    "report": Entry(
        "report:report", "Write a store as one HTML page: summary, bar charts, a table of all units, top images."
    ),
    "export": Entry(
        "export:export",
        "Write a store's labels, scores and evidence as CSV with the columns of the 2017 results, as JSON or Parquet.",
    ),
    "import": Entry("export:import_table", "Turn a result table of others into a store"),
    "rotate": Entry(
        "rotate:rotate",
        "Dissect a layer in bases Q^alpha between its own (0) and random ones (1): do concepts lie along units?",
        torch=True,
    ),
    "series": Entry(
        "series:series",
        "Dissect a series of networks, each into a store, and show unique detectors against what they differ in.",
        torch=True,
    ),
    "why": Entry("why:why", "Which labelled units made the network say this of an image, and not that.", torch=True),
    "ablate": Entry("ablate:ablate", "Take units of a layer away and measure what each class loses.", torch=True),
    "insert": Entry(
        "insert:insert",
        "Where a concept can be inserted into a generator's pictures: by what stood there before.",
        torch=True,
    ),
    "ace": Entry(
        "ace:ace",
        "The average causal effect of a generator's units on a concept, and coefficients of all units learned for it.",
        torch=True,
    ),
    "paint": Entry(
        "paint:paint", "Paint concepts into a generator's pictures and out of them, in cells of a layer's map."
    ),
    "sample": Entry(
        "sample:sample", "Draw a generator's samples again: one as a picture, several as a sheet.", torch=True
    ),
    "attack": Entry("attack:attack", "What an adversarial change of images does to labelled units.", torch=True),
    "doctor": Entry("doctor:doctor", "GPU, versions, viewer, terminal, file locking and free disk.", torch=True),
    "data": Entry("data:app", "Labelled image data: info, check, init, images, show, merge, agree, download, pack."),
}


def load(name: str) -> Any:
    """The command ``name`` as Typer runs it, its module imported now; KeyError where there is none."""
    entry = COMMANDS[name]
    module, _, attribute = entry.at.partition(":")
    there = getattr(import_module(f"ndissect.tui.cli.{module}"), attribute)
    if isinstance(there, typer.Typer):
        group = get_group(there)
        group.name = name
        return group
    alone = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
    alone.command(name, **entry.settings)(there)
    return get_command(alone)


class _Commands(Mapping[str, Any]):
    """The commands by name, each loaded when it is looked up."""

    def __getitem__(self, name: str) -> Any:
        return load(name)

    def __iter__(self) -> Iterator[str]:
        return iter(COMMANDS)

    def __len__(self) -> int:
        return len(COMMANDS)


class CommandGroup(TyperGroup):
    """``nd`` itself: it loads the one command that is run, and lists all of them without loading any."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.commands = cast(Any, _Commands())

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The command that ``args`` name; NDError where it needs torch, and that cannot be loaded here."""
        name, command, rest = super().resolve_command(ctx, args)
        if name is not None and COMMANDS[name].torch and not ctx.resilient_parsing:  # a shell that completes needs none
            machine_failures.check_torch()
        return name, command, rest

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """List the commands in the help."""
        listed = [TyperCommand(name, help=entry.says) for name, entry in COMMANDS.items()]
        TyperGroup(commands=listed).format_commands(ctx, formatter)
