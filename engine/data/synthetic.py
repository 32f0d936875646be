"""A data set of Broden's size and shape, in its format, drawn by a rule: for benchmarks, where Broden is not at hand.

    root = write_synthetic(cache_folder() / "synthetic", images=2000)

Image i depends on the seed and i alone, so that every data set is the beginning of a larger one.
"""

from __future__ import annotations

import csv
import errno
import functools
import io
import json
import multiprocessing
import os
import re
import signal
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from ndissect.engine.data.alone import alone_in
from ndissect.engine.data.colors import COLORS
from ndissect.engine.data.images import numbers_to_rgb
from ndissect.engine.data.index_table import FIXED_COLUMNS, split_by_name
from ndissect.engine.data.synthetic_scene import CATEGORIES, FEWEST_CONCEPTS, KINDS, Painter, concept_numbers
from ndissect.engine.data.unpack import require_space
from ndissect.store.errors import NDError, WrongUse
from ndissect.store.files import (
    atomic,
    hidden,
    own_file,
    own_folder,
    remedy,
    remove_known,
    remove_left_overs,
    replacing,
)

#: Changes whenever the same seed gives other files.
VERSION = 1

#: Images that are made, and kept after an interruption, together: a fraction of a second's work.
CHUNK = 32

_PARAMETERS = "synthetic.json"
_FINISHED = "chunks"  # the folder that holds, until all are whole, what the tables need of each whole chunk
_QUALITY = 90
# As measured: bytes a pixel of a photograph and of a map, maps an image, and what a file leaves unused of its last
# disk block.
_BYTES_PER_PIXEL, _BYTES_PER_LABEL, _MAPS, _UNUSED = 0.45, 0.2, 4, 2048


@dataclass(frozen=True)
class Parameters:
    """What a synthetic data set is a function of, kept in its folder as synthetic.json."""

    images: int
    seed: int
    image_size: int
    grid: int
    concepts: int
    version: int = VERSION


def write_synthetic(
    folder: Path,
    images: int = 63_305,
    *,
    seed: int = 0,
    workers: int = 0,
    progress: Callable[[int, int], None] | None = None,
    image_size: int = 224,
    grid: int = 112,
    concepts: int = 1197,
) -> Path:
    """``folder``, after writing the synthetic data set of these parameters into it; at once where it is there already.

    ``image_size`` and ``grid``: pixels a side of the photographs and of the label maps; ``workers``: processes, 0 for
    one on each core; ``progress`` receives (images done, images in all). The files are made in a hidden folder beside
    it, ``.<name>.part``, which takes the name when it is whole: after an interruption a call with the same parameters
    goes on where the last one stopped. NDError where ``folder`` holds anything else, cannot be written or the disk
    lacks room.
    """
    wanted = Parameters(images, seed, image_size, grid, concepts)
    _check(wanted, workers)
    try:
        if _is_ready(folder, wanted):
            return folder
        part = hidden(folder, "part")
        own_folder(part)
        # When one process gives the folder its final name, no other may be writing to it.
        with alone_in(part, f"Another process is writing {part}"):
            if not _is_ready(folder, wanted):  # it was made since
                _begin(part, wanted)
                _draw_all(part, wanted, workers or _cores(), progress)
                _write_tables(part, wanted)
                remove_known(part / _FINISHED, _is_chunk)
                if folder.is_dir():
                    folder.rmdir()
                part.rename(folder)
    except BrokenProcessPool as error:
        what = f"A process that drew images for {folder} was ended from outside, perhaps for lack of memory"
        raise NDError(what, "Try again with fewer workers: what is finished is kept") from error
    except OSError as error:
        hint = f"What is finished is kept: {remedy(error, 'choose another folder')}"
        raise NDError(f"The synthetic data cannot be written to {folder}: {error.strerror or error}", hint) from error
    return folder


def _check(wanted: Parameters, workers: int) -> None:
    bounds = {
        "images": (wanted.images, 1, 10**8),
        "seed": (wanted.seed, 0, 2**63),
        "image_size": (wanted.image_size, 16, 2048),
        "grid": (wanted.grid, 8, 2048),
        "concepts": (wanted.concepts, FEWEST_CONCEPTS, 2**16 - 1),
        "workers": (workers, 0, 4096),
    }
    for name, (value, least, most) in bounds.items():
        if not least <= value <= most:
            raise WrongUse(f"A synthetic data set cannot have {name} {value}", f"Choose from {least} to {most}")


def _is_ready(folder: Path, wanted: Parameters) -> bool:
    """Whether ``folder`` is the data set; False where it is yet to be made. NDError where it is something else."""
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return False
    there = _read_parameters(folder)
    if there == asdict(wanted):
        return True
    if there is None:
        raise NDError(f"{folder} exists and is no synthetic data set", "Name a new folder, or move this one away")
    other = "; ".join(
        f"{name} {there.get(name)}, not {value}" for name, value in asdict(wanted).items() if there.get(name) != value
    )
    raise NDError(f"{folder} holds another synthetic data set: {other}", "Name a new folder, or delete this one")


def _read_parameters(folder: Path) -> dict[str, object] | None:
    try:
        parameters = json.loads((folder / _PARAMETERS).read_text("utf-8"))
    except (OSError, ValueError):
        return None
    return parameters if isinstance(parameters, dict) else None


def _begin(part: Path, wanted: Parameters) -> None:
    """Make the folders that are missing, after removing what was begun with other parameters."""
    remove_left_overs(part / _PARAMETERS)
    there = _read_parameters(part)
    if there != asdict(wanted):
        if there is None and any(part.iterdir()):
            raise NDError(f"{part} is in the way: it holds no unfinished synthetic data set", "Move it away")
        remove_known(part / _FINISHED, _is_chunk)
        for kind in KINDS:
            remove_known(part / "images" / kind, _is_picture)
        with atomic(part / _PARAMETERS) as file:
            file.write_text(json.dumps(asdict(wanted), indent=1) + "\n", "utf-8")
    for name in (_FINISHED, "images", *(f"images/{kind}" for kind in KINDS)):
        own_folder(part / name)


def _draw_all(part: Path, wanted: Parameters, workers: int, progress: Callable[[int, int], None] | None) -> None:
    """Write the images of every chunk that is not finished yet."""
    missing = [start for start in range(0, wanted.images, CHUNK) if _read_chunk(part, start) is None]
    left = sum(min(CHUNK, wanted.images - start) for start in missing)
    an_image = _BYTES_PER_PIXEL * wanted.image_size**2 + _MAPS * _BYTES_PER_LABEL * wanted.grid**2
    require_space(part, int(left * (an_image + _UNUSED * (1 + _MAPS))), f"write {left:,} synthetic images")
    done = wanted.images - left
    if progress:
        progress(done, wanted.images)
    for count in _drawn(part, wanted, missing, min(workers, len(missing))):
        done += count
        if progress:
            progress(done, wanted.images)


def _drawn(part: Path, wanted: Parameters, starts: Sequence[int], workers: int) -> Iterator[int]:
    """The number of images of each chunk, in any order, as it is written."""
    if workers < 2:
        for start in starts:
            yield _write_chunk(part, wanted, start)
        return
    # Not forked: the caller may have threads, and a GPU.
    pool = ProcessPoolExecutor(
        workers, multiprocessing.get_context("spawn"), signal.signal, (signal.SIGINT, signal.SIG_IGN)
    )
    try:
        for future in as_completed([pool.submit(_write_chunk, part, wanted, start) for start in starts]):
            yield future.result()
    finally:
        # On ctrl-c each process ends its chunk.
        pool.shutdown(cancel_futures=True)


def _write_chunk(part: Path, wanted: Parameters, start: int) -> int:
    """How many images were written, from ``start`` on; the file that says so comes last."""
    painter = _painter(wanted)
    rows = []
    images = np.zeros(wanted.concepts + 1, np.int64)
    pixels = np.zeros(wanted.concepts + 1, np.int64)
    for index in range(start, min(start + CHUNK, wanted.images)):
        picture = painter.draw(index)
        stem = f"{picture.kind}/{index:06d}"
        name = f"{stem}.jpg"
        with open(part / "images" / name, "wb", opener=own_file) as out:
            Image.fromarray(picture.pixels).save(out, "JPEG", quality=_QUALITY)
        cells = {category: [str(number) for number in numbers] for category, numbers in picture.labels.items()}
        for category, maps in picture.maps.items():
            cells[category] = [
                f"{stem}_{category}{f'_{k}' if len(maps) > 1 else ''}.png" for k in range(1, len(maps) + 1)
            ]
            for path, numbers in zip(cells[category], maps, strict=True):
                with open(part / "images" / path, "wb", opener=own_file) as out:
                    Image.fromarray(numbers_to_rgb(numbers)).save(out, "PNG", compress_level=2)
            counts = _count(maps, wanted.concepts)
            images += counts > 0
            pixels += counts
        labelled = [number for numbers in picture.labels.values() for number in numbers]
        images[labelled] += 1
        pixels[labelled] += wanted.grid**2
        sizes = [wanted.image_size] * 2 + [wanted.grid] * 2
        rows.append([name, split_by_name(name), *map(str, sizes), *(";".join(cells.get(c, ())) for c in CATEGORIES)])
    present = np.flatnonzero(images).tolist()
    text = json.dumps({"rows": rows, "concepts": [[n, int(images[n]), int(pixels[n])] for n in present]})
    with replacing(_chunk_file(part, start), durable=False) as file:
        file.write_text(text, "utf-8")
    return len(rows)


def _count(maps: Sequence[npt.NDArray[np.uint16]], concepts: int) -> npt.NDArray[np.int64]:
    """(concepts + 1,): the pixels that hold each concept in any of the maps of a category; none hold 0."""
    counts = np.zeros(concepts + 1, np.int64)
    for k, numbers in enumerate(maps):
        fresh = np.logical_and.reduce([numbers != other for other in maps[:k]]) if k else numbers != 0
        counts += np.bincount(numbers[fresh], minlength=concepts + 1)
    counts[0] = 0
    return counts


@functools.lru_cache(1)
def _painter(wanted: Parameters) -> Painter:
    return Painter(wanted.seed, wanted.image_size, wanted.grid, wanted.concepts)


def _chunk_file(part: Path, start: int) -> Path:
    return part / _FINISHED / f"{start:06d}.json"


def _read_chunk(part: Path, start: int) -> dict[str, Any] | None:
    """What the tables need of a chunk; None where it is not finished, or its file is damaged or a link."""
    try:
        with open(_chunk_file(part, start), "rb", opener=own_file) as file:
            chunk = json.load(file)
    except (OSError, ValueError):
        return None
    return chunk if isinstance(chunk, dict) and chunk.keys() == {"rows", "concepts"} else None


def _is_chunk(name: str) -> bool:
    return re.fullmatch(r"\.?[0-9]{6,}\.json(\.[0-9a-f.]+part)?", name) is not None


def _is_picture(name: str) -> bool:
    return re.fullmatch(r"[0-9]{6,}(_[a-z]+(_[0-9]+)?)?\.(jpg|png)", name) is not None


def _write_tables(part: Path, wanted: Parameters) -> None:
    """index.csv, label.csv, category.csv and the six c_ files, summed up from the chunks."""
    rows: list[list[str]] = []
    images = np.zeros(wanted.concepts + 1, np.int64)
    pixels = np.zeros(wanted.concepts + 1, np.int64)
    for start in range(0, wanted.images, CHUNK):
        chunk = _read_chunk(part, start)
        if chunk is None:
            raise OSError(errno.EIO, f"{_chunk_file(part, start).name} was damaged meanwhile")
        rows += chunk["rows"]
        for number, held, covered in chunk["concepts"]:
            images[number] += held
            pixels[number] += covered
    frequency, coverage = images.tolist(), [f"{area:.6f}" for area in (pixels / wanted.grid**2).tolist()]
    _save_table(part / "index.csv", [*FIXED_COLUMNS, *CATEGORIES], rows)
    labels, summary = [], []
    for category, numbers in concept_numbers(wanted.concepts).items():
        names = {n: _name(category, place) for place, n in enumerate(numbers)}
        ranked = sorted(numbers, key=lambda n: (-frequency[n], n))
        _save_table(
            part / f"c_{category}.csv",
            ["code", "number", "name", "frequency", "coverage"],
            [[code, n, names[n], frequency[n], coverage[n]] for code, n in enumerate(ranked, 1)],
        )
        summary.append([category, numbers[0], numbers[-1], len(numbers), sum(frequency[n] for n in numbers)])
        labels += [[n, names[n], f"{category}({frequency[n]})", frequency[n], coverage[n], ""] for n in numbers]
    _save_table(part / "category.csv", ["name", "first", "last", "count", "frequency"], summary)
    _save_table(part / "label.csv", ["number", "name", "category", "frequency", "coverage", "syns"], labels)


def _name(category: str, place: int) -> str:
    """A name in Broden's spelling: the colours' own, for the others a number, and the endings -c and -s."""
    if category == "color":
        return f"{COLORS[place]}-c"
    return f"{category} {place + 1}{'-s' if category == 'scene' else ''}"


def _save_table(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([header, *rows])
    with replacing(path, durable=False) as file:
        file.write_text(text.getvalue(), "utf-8")


def _cores() -> int:
    available = getattr(os, "sched_getaffinity", None)
    return len(available(0)) if available else os.cpu_count() or 1
