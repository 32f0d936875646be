"""The command ``nd``."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from ndissect.store.errors import NDError
from ndissect.tui.cli import data, dissect, doctor, export, look, overlay
from ndissect.tui.cli.output import tell

# No Rich markup: drawing help in boxes would double the time that `nd --help` takes.
app = typer.Typer(
    name="nd", no_args_is_help=True, rich_markup_mode=None, pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
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
) -> None:
    """Network Dissection: which human concepts do the units of a vision network detect?

    nd dissect              dissect the bundled demo network, no download
    nd inspect layer4       look its units up
    """


app.command("dissect")(dissect.dissect)
app.command("layers")(dissect.layers)
app.command("inspect")(look.inspect)
app.command("concepts")(look.concepts)
app.command("overlay")(overlay.overlay)
app.command("export")(export.export)
app.command("import")(export.import_table)
app.command("doctor")(doctor.doctor)
app.add_typer(data.app, name="data")


def main() -> None:
    """Run the command line. A failure is two lines and an exit code: 2 wrong use, 1 failure, 130 interrupted."""
    debug = "--debug" in sys.argv
    sys.argv[1:] = [a for a in sys.argv[1:] if a != "--debug"]
    try:
        app()
    except NDError as e:
        if debug:
            raise
        tell(f"nd: {e.message}")
        if e.hint:
            tell(f"    {e.hint}")
        sys.exit(e.exit_code)
    except KeyboardInterrupt:
        tell("nd: interrupted")
        sys.exit(130)
    except BrokenPipeError:
        # The reader of a pipe (head, less) has seen enough; keep the interpreter from complaining at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except Exception as e:
        if debug:
            raise
        tell(f"nd: unexpected {type(e).__name__}: {e}")
        tell("    this is a defect of nd: run again with --debug and report what it prints")
        sys.exit(1)
