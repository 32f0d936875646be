"""``nd data``: making a labelled data set, what one holds, what is wrong with it, fetching one, and packing it."""

from __future__ import annotations

import itertools
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ndissect.store.errors import NDError, WrongUse
from ndissect.tui.cli import data_images, data_merge, data_show
from ndissect.tui.cli.data_agree import agree
from ndissect.tui.cli.data_init import init
from ndissect.tui.cli.options import FormatOption, JsonOption, MaxPixelsOption

if TYPE_CHECKING:
    from ndissect.engine.data.dataset import FolderDataset

# So many sizes of images are listed, the most frequent.
_SIZES = 8

app = typer.Typer(
    help="Labelled image data: info, check, init, images, show, merge, agree, download, pack.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
app.command()(data_images.images)
app.command()(data_show.show)
app.command()(data_merge.merge)

DataArgument = Annotated[
    str, typer.Argument(metavar="PATH", help="A data set's folder, demo, or a downloaded broden1_224.")
]


app.command()(init)


def _note(text: str) -> None:
    from ndissect.tui.cli.output import tell

    tell(f"note: {text}")


@app.command()
def info(
    path: DataArgument,
    concept: Annotated[
        str | None, typer.Argument(metavar="[CONCEPT]", help="The images of this concept, as nd data images.")
    ] = None,
    count: Annotated[int, typer.Option("--count", "-n", min=0, help="How many of the most and least frequent.")] = 10,
    max_pixels: MaxPixelsOption = None,
    data_format: FormatOption = None,
    json: JsonOption = False,
) -> None:
    """Images, concepts by category, coverage, and the most and least frequent concepts."""
    if concept is not None:
        data_images.images(path, concept, max_pixels=max_pixels, json=json)
        return
    from ndissect.engine.data.info import describe
    from ndissect.engine.demo.named import find_named
    from ndissect.store.concepts import display_name
    from ndissect.store.files import human_bytes
    from ndissect.tui.cli.output import PrintedColumn, PrintedTable, print_json, print_table
    from ndissect.tui.cli.progress import show_progress
    from ndissect.tui.tables.formats import number

    with show_progress() as progress:
        reading = progress.step("reading the sizes of images")
        d = describe(find_named(path), count, _note, max_pixels, key=data_format, progress=reading)
    if json:
        print_json(asdict(d))
        return
    splits = ", ".join(f"{n} {split}" for split, n in d.splits.items())
    sizes = ", ".join(f"{n} of {size}" for size, n in itertools.islice(d.image_sizes.items(), _SIZES))
    sizes += f" and {len(d.image_sizes) - _SIZES} more sizes" if len(d.image_sizes) > _SIZES else ""
    sources = ", ".join(f"{n} {source}" for source, n in d.sources.items())
    about = [f"{d.images} images ({splits}); {sizes} pixels, label maps {d.map_size[0]} x {d.map_size[1]}"]
    if set(d.sources) != {"."}:  # all images in one folder
        about.append(f"sources: {sources}")
    if d.pack:
        about.append(f"packed: {d.pack.path}, {human_bytes(d.pack.bytes)}, {d.pack.packed}")
    columns = [
        PrintedColumn("category"),
        PrintedColumn("concepts", right=True),
        PrintedColumn("images", right=True),
        PrintedColumn("coverage", number, right=True),
    ]
    rows = [[c.name, c.concepts, c.images, c.coverage] for c in d.categories]
    print_table(PrintedTable(columns, rows, title=d.path, notes=about))
    if not d.most and count:  # frequencies are not in the tables of this format
        return
    columns = [
        PrintedColumn(""),
        PrintedColumn("number", right=True),
        PrintedColumn("concept"),
        PrintedColumn("category"),
        PrintedColumn("images", right=True),
        PrintedColumn("coverage", number, right=True),
    ]
    rows = [
        [which, c.number, display_name(c.name, c.category), c.category, c.images, c.coverage]
        for which, concepts in (("most", d.most), ("least", d.least))
        for c in concepts
    ]
    print_table(PrintedTable(columns, rows, notes=["coverage: area in whole images, summed over images"]))


@app.command()
def check(
    path: DataArgument,
    max_pixels: MaxPixelsOption = None,
    data_format: FormatOption = None,
    json: JsonOption = False,
) -> None:
    """Open every file and list all that is wrong. Exit code 1 if anything is."""
    from ndissect.engine.data.check import check_dataset, first_of_each_kind
    from ndissect.engine.demo.named import find_named
    from ndissect.tui.cli.output import PrintedColumn, PrintedTable, print_json, print_table, tell
    from ndissect.tui.cli.progress import show_progress

    folder = find_named(path)
    with show_progress() as progress:
        problems = check_dataset(folder, progress.step("checking"), max_pixels=max_pixels, note=_note, key=data_format)
    if json:
        print_json({"path": str(folder), "problems": [asdict(p) for p in problems]})
    elif problems:
        print_table(
            PrintedTable(
                [PrintedColumn("file"), PrintedColumn("what is wrong", wraps=True)],
                [[p.file, p.what] for p in first_of_each_kind(problems)],
            )
        )
    if problems:
        tell(f"{folder}: {len(problems)} problem{'s' * (len(problems) > 1)}")
        raise typer.Exit(1)
    tell(f"{folder}: nothing is wrong")


@app.command()
def download(
    name: Annotated[str, typer.Argument(metavar="NAME", help="broden1_224, broden1_227 or broden1_384.")],
) -> None:
    """Fetch a Broden data set into the cache; goes on where an earlier download stopped."""
    from ndissect.engine.data import download as fetching
    from ndissect.store.names import quoted
    from ndissect.tui.cli.output import emit_line, tell

    show = _Transfer()
    try:
        folder = fetching.download(name, progress=show, notice=tell)
    finally:
        show.end()
    emit_line(str(folder))
    tell(f"dissect over it: nd dissect NETWORK --data {quoted(name)}")


class _Transfer:
    """Shows bytes on the way: redrawn on a terminal, a line each tenth elsewhere, as no bar of Rich does."""

    def __init__(self) -> None:
        self._shown = ""

    def __call__(self, phase: str, done: int, total: int | None) -> None:
        from ndissect.store.files import human_bytes
        from ndissect.store.text import one_line

        share = f" {100 * done // total:3d} %" if total else ""
        text = one_line(f"{phase}{share}  {human_bytes(done)}" + (f" of {human_bytes(total)}" if total else ""))
        if sys.stderr.isatty():
            sys.stderr.write(f"\r{text:<60}")
            sys.stderr.flush()
        elif total and (step := f"{phase} {10 * done // total}") != self._shown:
            self._shown = step
            sys.stderr.write(f"{text}\n")

    def end(self) -> None:
        if sys.stderr.isatty():
            sys.stderr.write("\r" + " " * 60 + "\r")


@app.command()
def pack(
    path: DataArgument,
    force: Annotated[bool, typer.Option("--force", help="Pack again what is packed already.")] = False,
    remove: Annotated[bool, typer.Option("--remove", help="Delete the pack.")] = False,
    workers: Annotated[
        int, typer.Option("--workers", "-w", min=0, help="Threads that decode; 0: one a core, up to 16.")
    ] = 0,
    max_pixels: MaxPixelsOption = None,
    data_format: FormatOption = None,
) -> None:
    """Decode every image and label map once, for all networks; later runs use the pack by themselves.

    Goes on where it was when it is stopped, and run again.
    """
    from ndissect.engine.data.formats import open_folder
    from ndissect.engine.demo.named import find_named
    from ndissect.tui.cli.output import emit_line

    if force and remove:
        raise WrongUse("--force packs and --remove deletes", "choose one of them")
    dataset = open_folder(find_named(path), max_pixels=max_pixels, key=data_format, note=_note)
    if remove:
        _remove_pack(dataset)
        return
    folder = _pack(dataset, force, workers)
    emit_line(str(folder))


def _pack(dataset: FolderDataset, force: bool, workers: int) -> Path:
    from ndissect.engine.data.pack import pack, plan
    from ndissect.engine.data.packed import find_pack
    from ndissect.store.files import human_bytes
    from ndissect.tui.cli.console import command_line
    from ndissect.tui.cli.output import tell
    from ndissect.tui.cli.progress import show_progress

    there = find_pack(dataset, _note)
    if there is not None and not force:
        tell(f"{dataset.name} is packed already ({human_bytes(there.bytes)}, {there.packed}); --force packs again")
        return there.folder
    size = plan(dataset)
    free = human_bytes(size.free)
    tell(f"{dataset.name}: {size.images} images, about {human_bytes(size.bytes)} in {size.folder}; {free} free")
    done = 0 if there else size.done
    if done:
        tell(f"goes on after the {done} images that are packed")
    started = time.monotonic()
    try:
        with show_progress() as progress:
            folder = pack(dataset, progress, force=force, workers=workers)
    except KeyboardInterrupt:
        packed = f"{plan(dataset).done} of {size.images} images are packed"
        raise _Stopped(f"stopped; {packed}", f"go on where it was: {command_line()}") from None
    seconds = time.monotonic() - started
    rate = (size.images - done) / max(seconds, 1e-6)
    tell(f"{size.images} images packed, {human_bytes(size.bytes)} in {seconds:.1f} s, {rate:.0f} images/s")
    tell("later runs use it by themselves")
    return folder


class _Stopped(NDError):
    exit_code = 130


def _remove_pack(dataset: FolderDataset) -> None:
    from ndissect.engine.data.pack import remove_pack
    from ndissect.store.files import human_bytes
    from ndissect.tui.cli.output import tell

    removed = remove_pack(dataset)
    for folder, size in removed:
        tell(f"removed {folder}, {human_bytes(size)}")
    if not removed:
        tell(f"{dataset.name} is not packed")


app.command()(agree)
