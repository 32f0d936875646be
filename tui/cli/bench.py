"""``nd bench``: what a dissection costs on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ndissect.engine.run.options import Options
from ndissect.tui.cli.options import JsonOption
from ndissect.tui.cli.run_options import takes_options


@takes_options(
    only="network layers data device precision batch_size workers max_pixels anyway",
    first="network layers data images make device precision batch_size workers max_pixels anyway",
    texts={
        "data": "A Broden folder. Default: images of Broden's size, made once.",
        "precision": "fp32, tf32, bf16 or fp16.",
    },
)
def bench(
    options: Options,
    images: Annotated[int, typer.Option("--images", "-n", min=1, help="How many images.")] = 256,
    make: Annotated[
        Path | None, typer.Option("--make", help="Make a data set of Broden's size (63,305 images) here, and no more.")
    ] = None,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds, taken in turn.")] = 3,
    json: JsonOption = False,
) -> None:
    """Time a dissection beside decoding and the bare forward pass, on this machine, in one process."""
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
    m = measured
    rows = [
        ["forward pass", m.forward_s, m.images / m.forward_s],
        ["decoding and forward pass", m.decode_forward_s, m.images / m.decode_forward_s],
        ["whole dissection", m.dissect_s, m.images / m.dissect_s],
        ["tally alone", m.tally_s, m.images / m.tally_s],
        ["dense tally", m.dense_tally_s, m.images / m.dense_tally_s],
    ]
    notes = [
        *mark_lines([Mark(**mark) for mark in m.marks]),
        f"dissection / (decoding and forward pass) = {m.ratio:.2f}; dense / tally = {m.dense_tally_s / m.tally_s:.1f}",
        f"{m.images} images, {m.units} units of {', '.join(m.layers)}, {m.precision}, on {m.device}",
    ]
    columns = [
        PrintedColumn(""),
        PrintedColumn("seconds", number, right=True),
        PrintedColumn("images/s", lambda x: f"{x:.0f}", right=True),
    ]
    print_table(PrintedTable(columns, rows, title=m.network, notes=notes), notes_in_logs=True)
