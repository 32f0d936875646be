"""``nd bench``: what a dissection costs on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ndissect.tui.cli.network_options import (
    AnywayOption,
    BatchOption,
    DeviceOption,
    LayersOption,
    NetworkArgument,
    WorkersOption,
)
from ndissect.tui.cli.options import JsonOption, MaxPixelsOption


def bench(
    network: NetworkArgument = "demo",
    layers: LayersOption = None,
    data: Annotated[
        str | None, typer.Option("--data", "-d", help="A Broden folder. Default: images of Broden's size, made once.")
    ] = None,
    images: Annotated[int, typer.Option("--images", "-n", min=1, help="How many images.")] = 256,
    make: Annotated[
        Path | None, typer.Option("--make", help="Make a data set of Broden's size (63,305 images) here, and no more.")
    ] = None,
    device: DeviceOption = "auto",
    precision: Annotated[str, typer.Option(help="fp32, tf32, bf16 or fp16.")] = "fp32",
    batch_size: BatchOption = 0,
    workers: WorkersOption = 0,
    max_pixels: MaxPixelsOption = None,
    anyway: AnywayOption = False,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds, taken in turn.")] = 3,
    json: JsonOption = False,
) -> None:
    """Time a dissection beside decoding and the bare forward pass, on this machine, in one process."""
    from ndissect.tui.cli.dissect import known_precision
    from ndissect.tui.cli.output import PrintedColumn, PrintedTable, emit_line, print_json, print_table, tell
    from ndissect.tui.cli.progress import show_progress
    from ndissect.tui.tables.formats import number

    known_precision(precision)
    from ndissect.engine.data.synthetic import write_synthetic

    if make is not None:
        with show_progress() as progress:
            emit_line(str(write_synthetic(make, progress=progress.step("making images"))))
        return
    from ndissect.engine.data.packed import open_data
    from ndissect.store.files import cache_folder

    if data is None:
        with show_progress() as progress:
            folder = write_synthetic(
                cache_folder() / f"bench-{images}", images, progress=progress.step("making images")
            )
    else:
        from ndissect.tui.cli.data import find

        folder = find(data)
    dataset = open_data(folder, tell, max_pixels)

    from ndissect.engine.experiments.bench import bench as measure
    from ndissect.engine.machine.device import choose_device
    from ndissect.engine.machine.memory import budget
    from ndissect.engine.networks.layers import default_layers, list_layers, match_layers
    from ndissect.engine.networks.resolve import load_network
    from ndissect.engine.run.settings import Settings
    from ndissect.store.protocol import make_protocol

    loaded, chosen = load_network(network), choose_device(device)
    height, width = dataset.read(0).image.shape[:2]
    infos = list_layers(loaded, (height, width))
    names = set(match_layers(layers, infos) if layers else default_layers(infos))
    settings = Settings(
        chosen,
        batch_size,
        workers,
        memory=budget(None, chosen),
        precision=precision,  # type: ignore[arg-type]
        anyway=anyway,
    )
    measured = measure(
        loaded,
        dataset,
        [info for info in infos if info.name in names],
        make_protocol(),
        settings,
        images=images,
        rounds=rounds,
        tell=tell,
    )
    from ndissect.store.marks import Mark
    from ndissect.tui.tables.remarks import mark_lines

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
