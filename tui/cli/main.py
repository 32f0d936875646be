"""The command ``nd``."""

from __future__ import annotations

import os
import sys
from typing import Annotated, Any

import typer
from typer.completion import get_completion_inspect_parameters, install_callback, show_callback

from ndissect.store.errors import NDError
from ndissect.tui.cli import machine_failures, streams
from ndissect.tui.cli.commands import CommandGroup
from ndissect.tui.cli.options import HelpOption
from ndissect.tui.cli.output import tell

INTERRUPTED = 130

# No Rich markup: drawing help in boxes would double the time that `nd --help` takes.
app = typer.Typer(
    name="nd", cls=CommandGroup, no_args_is_help=True, rich_markup_mode=None, pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]}, add_help_option=False, add_completion=False,
)  # fmt: skip


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        print(f"nd (ndissect) {version('ndissect')}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks of failures.")] = False,
    help_: HelpOption = False,
    install: Annotated[
        bool,
        typer.Option(
            "--install-completion", callback=install_callback, help="Install completion for the current shell."
        ),
    ] = False,
    show: Annotated[
        bool, typer.Option("--show-completion", callback=show_callback, help="Print it, to be copied or changed.")
    ] = False,
) -> None:
    """Network Dissection: which human concepts do the units of a vision network detect?

    \b
    nd dissect              dissect the bundled demo network, no download
    nd inspect layer4       look its units up
    nd browse               look at everything, by keyboard
    """


# The base of Typer's errors about options and arguments, from whichever click it carries.
_UsageError: Any = typer.BadParameter.__base__


def main() -> None:
    """Run the command line. A failure is two lines and an exit code: 2 wrong use, 1 failure, 130 interrupted."""
    streams.prepare()
    machine_failures.prepare()
    debug = "--debug" in sys.argv
    sys.argv[1:] = [a for a in sys.argv[1:] if a != "--debug"]
    if "_ND_COMPLETE" in os.environ:  # a shell asks; Typer would prepare for that in every run, by way of pydantic
        get_completion_inspect_parameters()
    # Beside other programs, OpenMP's threads would burn the cores waiting for each other: runs took four times as long.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        code = app(standalone_mode=False)
    except NDError as e:
        if debug:
            raise
        code = _say(e.message, e.hint, e.exit_code)
    except _UsageError as e:
        code = _wrong_use(e)
    except Exception as e:
        if debug:
            raise
        code = _unexpected(e)
    else:
        if code == INTERRUPTED:
            _say("interrupted", "", INTERRUPTED)
    streams.finish()
    sys.exit(code)


def _unexpected(error: Exception) -> int:
    """Say what is the machine's or its limits' doing, else what looks like a defect."""
    known = machine_failures.explained(error)
    if known is not None:
        return _say(known.message, known.hint, known.exit_code)
    hint = "this is a defect of nd: run again with --debug and report what it prints"
    if isinstance(error, ImportError):
        hint = "nd doctor looks at the installation; --debug shows the traceback"
    return _say(f"unexpected {type(error).__name__}: {error}", hint, 1)


def _say(message: str, hint: str, code: int) -> int:
    """Say what failed and what to do, a line each, which end without a period wherever they come from."""
    tell(f"nd: {_unended(message)}")
    if hint:
        tell(f"    {_unended(hint)}")
    return code


def _unended(text: str) -> str:
    return text if text.endswith("...") else text.removesuffix(".")


def _wrong_use(error: Any) -> int:
    """Say what is wrong with the options in two lines, or print the help that a group without a command asks for."""
    if type(error).__name__ == "NoArgsIsHelpError":
        error.show()
        return int(error.exit_code)
    message = error.format_message()
    command = error.ctx.command_path if error.ctx else "nd"
    return _say(message.replace("Value error, ", ""), f"{command} --help lists what there is", 2)
