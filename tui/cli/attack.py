"""``nd attack``: what an adversarial change of images does to labelled units."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from ndissect.engine.experiments.effect_request import EffectRequest
from ndissect.store.errors import NotReplaced, WrongUse
from ndissect.tui.cli.effect_options import labelled_layer, takes_effect_options
from ndissect.tui.cli.options import ForceOption, JsonOption

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from ndissect.engine.experiments.attack import Attacked, Method
    from ndissect.tui.tables.attacked import AttackReport, Row

METHODS = ("cw", "pgd")
_FIRST = "target source layer count method steps confidence epsilon mean_map output save force json"


@takes_effect_options(first=_FIRST)
def attack(
    request: EffectRequest,
    target: Annotated[str, typer.Option(metavar="CLASS", help="The class that images are to be taken for.")],
    source: Annotated[
        str | None, typer.Option(metavar="CLASS", help="Attack images of this class alone. Default: of any.")
    ] = None,
    layer: Annotated[
        str | None, typer.Option("--layer", "-l", help="The layer. Default: the last of the store.")
    ] = None,
    count: Annotated[int, typer.Option("--count", "-n", min=1, help="So many images, spread evenly.")] = 100,
    method: Annotated[
        str, typer.Option(metavar="HOW", help="cw: the smallest change (Carlini-Wagner L2); pgd: a quick one.")
    ] = "cw",
    steps: Annotated[
        int | None, typer.Option(min=1, help="Steps. Default: 100 for each of 5 constants (cw), 40 (pgd).")
    ] = None,
    confidence: Annotated[
        float, typer.Option(min=0, help="How far the target's score is to lead: more survives 8 bits.")
    ] = 0.0,
    epsilon: Annotated[
        float, typer.Option(help="pgd: how far a pixel, in [0, 1], may change.", show_default="8/255")
    ] = 8 / 255,
    mean_map: Annotated[
        bool, typer.Option("--mean-map", help="Measure how far whole maps move, not how peaks change.")
    ] = False,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Draw images before and after with unit masks: FILE.png.")
    ] = None,
    save: Annotated[
        Path | None, typer.Option("--save", metavar="DIR", help="Write the changed images there, as PNG.")
    ] = None,
    force: ForceOption = False,
    json: JsonOption = False,
) -> None:
    """What an adversarial change of images does to labelled units.

    Images are changed until the network takes them for another class, and the units that both classes need are looked
    at before and after. For measuring one's own networks. Neither class nor prediction of the images is the target.
    Changed images are written only where --save says so. Ctrl-C ends it, and what is done is reported.
    """
    if method not in METHODS:
        raise WrongUse(f"--method '{method}' is none of {', '.join(METHODS)}", "cw changes least, pgd is quick")
    _check_output(output, force)
    _check_folder(save, force)

    from ndissect.engine.experiments.attack import attack as run
    from ndissect.engine.experiments.classified import open_classified
    from ndissect.tui.cli.console import TerminalConsole

    console = TerminalConsole()
    with console.listening():
        with open_classified(replace(request, layer=layer), console) as c:
            attacked = run(
                c,
                c.class_number(target),
                source=None if source is None else c.class_number(source),
                count=count,
                method=cast("Method", method),
                steps=steps,
                confidence=confidence,
                epsilon=epsilon,
                keep=None if save is None else lambda *image: _write(save, *image),
            )
        _report(attacked, request.store, output, mean_map=mean_map, json=json)
    if save is not None:
        console.tell(f"{int(attacked.reached.sum())} changed images are in {save}")
    if attacked.interrupt is not None:
        done = f"{len(attacked.reached)} of {attacked.wanted} images were attacked, and are reported"
        raise console.stopped(attacked.interrupt, done, "fewer images: --count; quicker: --method pgd") from None


def _check_output(output: Path | None, force: bool) -> None:
    """Refuse, before the work, a sheet that could not be written."""
    from ndissect.store.files import check_writable
    from ndissect.tui.cli.output import confirm_replace

    if output is None:
        return
    if output.suffix.lower() != ".png":
        raise WrongUse(f"the sheet is a PNG, and {output} does not end so", "for example -o attack.png")
    check_writable(output, 0)
    confirm_replace(output, force)


def _check_folder(save: Path | None, force: bool) -> None:
    """Make the folder for changed images; NotReplaced where it holds something, WrongUse where it cannot be made."""
    if save is None:
        return
    try:
        save.mkdir(parents=True, exist_ok=True)
        holds = any(save.iterdir())
    except OSError as e:
        raise WrongUse(f"cannot write images to {save}: {e.strerror}", "--save DIR names a folder") from e
    if holds and not force:
        raise NotReplaced(f"{save} holds files", "--force writes into it all the same; --save DIR names another")


def _write(folder: Path, number: int, name: str, pixels: npt.NDArray[np.float32]) -> None:
    """One changed image as PNG, named by its number and its own name."""
    import numpy as np
    from PIL import Image

    from ndissect.store.names import safe_name
    from ndissect.tui.pictures.overlay import save_png

    image = Image.fromarray(np.rint(pixels * 255).astype(np.uint8).transpose(1, 2, 0))
    path = folder / safe_name(f"{number:06d}-{Path(name).stem}", ".png")
    save_png(image, path, {"Title": f"{name}, attacked"})


def _report(attacked: Attacked, store: Path | None, output: Path | None, *, mean_map: bool, json: bool) -> None:
    from ndissect.engine.experiments.attack_changes import group_changes, share_interval, unit_changes
    from ndissect.tui.cli.output import print_json, tell
    from ndissect.tui.pictures.attack_sheet import attack_sheet
    from ndissect.tui.pictures.overlay import save_png
    from ndissect.tui.tables.attacked import AttackReport

    with labelled_layer(store, attacked.layer) as view:
        report = AttackReport(
            attacked,
            share_interval(int(attacked.reached.sum()), len(attacked.reached)),
            unit_changes(attacked, "map" if mean_map else "peak"),
            group_changes(attacked, "map" if mean_map else "peak"),
            "map" if mean_map else "peak",
            view,
        )
        if output is not None:
            save_png(attack_sheet(report), output, {"Title": report.title, "Source": str(store or "")})
            tell(str(output))
        if json:
            print_json(report.to_json())
        else:
            _print(report)


def _print(report: AttackReport) -> None:
    from ndissect.tui.cli.output import PrintedColumn, PrintedTable, print_table
    from ndissect.tui.tables.formats import iou, number

    def signed(value: float) -> str:
        return "-" if math.isnan(value) else f"{value:+.4g}"

    columns = [
        PrintedColumn("needed by"),
        PrintedColumn("unit", right=True),
        PrintedColumn("label"),
        PrintedColumn("IoU", iou, right=True),
        PrintedColumn("before", number, right=True, drop=2),
        PrintedColumn("after", number, right=True, drop=2),
        PrintedColumn("change", signed, right=True),
        PrintedColumn("from", signed, right=True, drop=1),
        PrintedColumn("to", signed, right=True, drop=1),
    ]
    table = PrintedTable(columns, [_line(row) for row in report.rows()], title=report.title, notes=report.notes())
    print_table(table, notes_in_logs=True)


def _line(row: Row) -> list[object]:
    blank = row.unit is None  # a group has no label and no peaks of its own
    known = [None if blank else value for value in (row.iou, row.before, row.after)]
    return [row.of, row.unit, row.label, *known, row.change, row.low, row.high]
