"""``nd bench``: what a dissection costs on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ndissect.engine.run.options import Options
from ndissect.tui.cli.options import JsonOption
from ndissect.tui.cli.run_options import takes_options

if TYPE_CHECKING:
    from ndissect.engine.experiments.bench import Bench

# Phases that took a smaller share of a dissection are not listed.
_SHOWN = 0.005


@takes_options(
    only="network layers data protocol device precision batch_size workers decode null max_pixels anyway",
    first="network layers data images make protocol null device precision batch_size workers decode max_pixels anyway",
    texts={
        "data": "A Broden folder. Default: images of Broden's size, made once.",
        "precision": "fp32, tf32, bf16 or fp16.",
        "decode": "Where JPEGs are decoded: cpu or gpu; auto means cpu here.",
    },
)
def bench(
    options: Options,
    images: Annotated[int, typer.Option("--images", "-n", min=1, help="How many images.")] = 256,
    make: Annotated[
        Path | None, typer.Option("--make", help="Make a data set of Broden's size (63,305 images) here, and no more.")
    ] = None,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds at most; fewer where they would take long.")] = 3,
    json: JsonOption = False,
) -> None:
    """Time a dissection beside decoding and the bare forward pass, on this machine, within a minute.

    It has its evidence, its null and its store, as by default. Where the time goes, what a batch asks of torch, and the
    bottleneck are told.
    """
    from ndissect.tui.cli.console import TerminalConsole
    from ndissect.tui.cli.output import PrintedColumn, PrintedTable, emit_line, print_json, print_table
    from ndissect.tui.tables.formats import number

    console = TerminalConsole()
    if make is not None:
        from ndissect.engine.data.synthetic import write_synthetic

        with console.progress() as progress:
            emit_line(str(write_synthetic(make, progress=progress.step("making images"))))
        return
    from ndissect.engine.experiments.from_options import bench_network
    from ndissect.store.marks import Mark
    from ndissect.tui.tables.remarks import mark_lines

    measured = bench_network(options, console, images=images, rounds=rounds)
    if json:
        print_json(measured.to_json())
        return
    title, rows, notes = measured.network, _rows(measured), _notes(measured)
    columns = [
        PrintedColumn(""),
        PrintedColumn("seconds", number, right=True),
        PrintedColumn("images/s", lambda x: f"{x:.0f}", right=True),
    ]
    notes = [*mark_lines([Mark(**mark) for mark in measured.marks]), *notes]
    print_table(PrintedTable(columns, rows, title=title, notes=notes), notes_in_logs=True)


def _rows(m: Bench) -> list[list[Any]]:
    """What was measured: its name, its seconds, and images a second."""
    seconds = [
        ("forward pass", m.forward_s),
        ("decoding", m.decode_s),
        *([("copying", m.copy_s)] if m.copy_s is not None else []),
        ("decoding and forward pass", m.decode_forward_s),
        ("whole dissection", m.dissect_s),
        *((f"- {what}", s) for what, s in m.phases.items() if s >= _SHOWN * m.dissect_s),
        ("tally alone", m.tally_s),
        ("dense tally", m.dense_tally_s),
    ]
    return [[what, s, m.images / s] for what, s in seconds]


def _notes(m: Bench) -> list[str]:
    """What is to be said of it: the bottleneck, the ratios, operations, and what was measured."""
    ratios = (
        f"dissection / (decoding and forward pass) = {m.ratio:.2f}; dense / tally = {m.dense_tally_s / m.tally_s:.1f}"
    )
    shares = f"{100 * m.other_share:.0f} % of the dissection is neither decoding nor the network"
    included = f"with {', '.join(m.included)}; without the {m.check_s:.1f} s of looking at the network first"
    what = f"{m.images} images, {m.units} units of {', '.join(m.layers)}, {m.precision}, on {m.device}"
    return [
        f"bottleneck: {m.bottleneck}",
        f"{ratios}; {shares}",
        *_operations(m),
        included,
        *([f"cut short: {m.cut}"] if m.cut else []),
        f"{what}; batches of {m.batch}, {m.workers} workers, the best of {m.rounds} rounds",
    ]


def _operations(m: Bench) -> list[str]:
    """What a batch asks of torch, and how often it waits."""
    if m.operations is None:
        return []
    counted = [
        f"{phase or 'between'} {count:.0f} ({m.operations.waits[phase]:.1f} waits)"
        for phase, count in m.operations.operations.items()
        if count >= 0.5 or m.operations.waits[phase] > 0
    ]
    return [f"torch operations of a batch of {m.operations.batch}, network excluded: {', '.join(counted)}"]
