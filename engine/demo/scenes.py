"""The demo data set: small labelled scenes and textures in Broden's format, drawn on first use.

    root = scenes.ensure()

Every image is a function of (seed, index) alone, so the files are the same for any number of processes. Run as
``python -m ndissect.engine.demo.scenes FOLDER`` it writes the data set into a folder of its own.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

from ndissect.engine.demo.broden_writer import SOURCE, Record, write_image, write_tables
from ndissect.engine.demo.render import render
from ndissect.store.errors import NDError
from ndissect.store.files import cache_folder, new_folder, remedy, remove_left_overs

#: Changes whenever the same seed gives other files; part of the name of the cache folder.
VERSION = "1"
IMAGES = 1600

#: Below this many images for each process, starting a further process costs more than it saves.
_SHARE = 100

Progress = Callable[[int, int], None]


def ensure(cache: Path | None = None, progress: Progress | None = None) -> Path:
    """The folder of the demo data set, drawn now if it is not there yet.

    It lies in ``cache``, by default the folder that the environment variable ND_CACHE names, else the user's cache
    folder. ``progress`` is called with (images done, images in all). NDError where the folder cannot be written.
    """
    cache = cache or cache_folder()
    folder = cache / f"demo-{VERSION}"
    return folder if (folder / "index.csv").is_file() else write(folder, progress=progress)


def write(folder: Path, images: int = IMAGES, seed: int = 0, progress: Progress | None = None) -> Path:
    """``folder``, after writing the data set of ``seed`` into it: all six categories, ``images`` images.

    The files are made in a folder beside it that takes the name only when it is whole. NDError where ``folder``
    exists and is not empty, or cannot be written.
    """
    if os.path.isdir(folder) and any(folder.iterdir()):  # noqa: PTH112 - Path.is_dir raises where a name is too long
        raise NDError(f"{folder} exists and is not empty", "name a new folder, or delete it first")
    part = None
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        remove_left_overs(folder)
        part = new_folder(folder)
        (part / "images" / SOURCE).mkdir(parents=True)
        write_tables(part, _draw_all(part, images, seed, progress))
        try:
            part.rename(folder)
        except OSError:
            # Another process was faster: what it made is the same, byte for byte.
            if not (folder / "index.csv").is_file():
                raise
    except OSError as error:
        raise _failed(folder, error) from error
    finally:
        if part is not None:
            shutil.rmtree(part, ignore_errors=True)
    return folder


def _failed(folder: Path, error: OSError) -> NDError:
    hint = remedy(error, "choose another folder with the environment variable ND_CACHE")
    return NDError(f"the demo data cannot be written to {folder}: {error.strerror or error}", hint)


def _draw_all(folder: Path, images: int, seed: int, progress: Progress | None) -> list[Record]:
    """The records of all images, drawn by this process and, where there are cores to spare, by others."""
    workers = max(1, min(_cores(), images // _SHARE, 8))
    records: list[Record] = []

    def draw(index: int) -> None:
        records.append(write_image(folder, index, render(seed, index)))
        if progress is not None:
            progress(len(records), images)

    # Plain processes of this module: multiprocessing would run the caller's own main module again.
    helpers = [_Helper(folder, images, seed, k, workers, records) for k in range(1, workers)]
    whole = False
    try:
        for index in range(0, images, workers):
            draw(index)
        whole = True
    finally:
        for helper in helpers:
            helper.finish(stop=not whole)
    for index in sorted(set(range(images)) - {r.index for r in records}):
        draw(index)
    if progress is not None:
        progress(images, images)
    return records


class _Helper:
    """A process that draws every ``step``-th image from ``first`` on; its records are appended to ``records``.

    One that cannot start or ends early leaves its images to the caller, who meets whatever stopped it.
    """

    def __init__(self, folder: Path, images: int, seed: int, first: int, step: int, records: list[Record]) -> None:
        # -P: a file of the current folder must not stand in for a module that this one imports.
        command = [sys.executable, "-P", "-m", "ndissect.engine.demo.scenes", str(folder)]
        command += [f"--images={images}", f"--seed={seed}", f"--first={first}", f"--step={step}"]
        self._process: subprocess.Popen[str] | None = None
        try:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
            )
        except OSError:
            return
        self._reader = threading.Thread(target=self._read, args=(records,), daemon=True)
        self._reader.start()

    def _read(self, records: list[Record]) -> None:
        assert self._process is not None and self._process.stdout is not None
        with self._process.stdout as lines:
            for line in lines:
                # A line without its end is of a process that was killed while it wrote.
                if line.endswith("\n"):
                    records.append(Record.from_json(line))

    def finish(self, stop: bool) -> None:
        """Wait until the process has drawn its images; with ``stop``, end it at once."""
        if self._process is None:
            return
        if stop:
            self._process.terminate()
        self._reader.join()
        self._process.wait()


def _cores() -> int:
    available = getattr(os, "sched_getaffinity", None)
    return len(available(0)) if available else os.cpu_count() or 1


def main() -> None:
    """Write the data set into a folder; with --first and --step, only the images of one of several processes."""
    parser = argparse.ArgumentParser(description="Write the demo data set.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--images", type=int, default=IMAGES)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("--step", type=int, default=0, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if not options.step:
        print(write(options.folder, options.images, options.seed))
        return
    for index in range(options.first, options.images, options.step):
        record = write_image(options.folder, index, render(options.seed, index))
        print(record.to_json(), flush=True)


if __name__ == "__main__":
    main()
