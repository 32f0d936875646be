"""Everything that ``nd`` shows of a store, each store in a process of its own, bounded in time and memory.

with Prober() as probe:
    found = probe(path)
    found.problem, found.refused, found.seconds, found.megabytes

The processes are forked from one that has imported all there is, so that one costs what the looking costs.
"""

from __future__ import annotations

import contextlib
import faulthandler
import functools
import gc
import io
import json
import os
import resource
import select
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

#: Seconds of the clock, and of the processor, after which a store counts as one that hangs.
PATIENCE, PROCESSOR = 60, 30


@dataclass(frozen=True)
class Found:
    """What became of a store.

    ``problem``: what no user should see, "" for nothing; ``refused``: the errors that were told; ``seconds``: of the
    processor, for the look that took longest; ``megabytes`` of memory beyond what a process has before.
    """

    problem: str
    refused: tuple[str, ...]
    seconds: float
    megabytes: float


class Prober:
    """Looks at stores, one after the other."""

    def __enter__(self) -> Prober:
        environment = os.environ | {"PYTHONPATH": str(Path(__file__).parent), "OMP_NUM_THREADS": "1", "COLUMNS": "100"}
        self._process = subprocess.Popen(
            [sys.executable, "-W", "error", __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment
        )
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()

    def __call__(self, path: Path, *, quick: bool = False) -> Found:
        """What became of ``path``; ``quick``: at one layer alone, without the report and the comparison."""
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin
        assert stdout
        stdin.write(f"{int(quick)}{path}\n".encode())
        stdin.flush()
        if not select.select([stdout], [], [], PATIENCE)[0]:
            return Found(f"no answer in {PATIENCE} s", (), PATIENCE, 0)
        line = json.loads(stdout.readline())
        return Found(line["problem"], tuple(line["refused"]), line["seconds"], line["megabytes"])


# The process that looks


def commands(path: Path, folder: Path, *, quick: bool) -> Iterator[list[str]]:
    """The command lines that look at a store."""
    store = ["-s", str(path)]
    out = folder / "out"
    yield ["inspect", *store]
    yield ["inspect", *store, "--json"]
    for layer in _layers(path)[: 1 if quick else 2]:
        yield ["inspect", layer, *store]
        yield ["inspect", f"{layer}:0", *store, "--json"]
        yield ["concepts", "car", *store]
        yield ["overlay", f"{layer}:1", *store, "-o", f"{out}.png", "--truth", "-f"]
    yield ["concepts", *store]
    yield ["classes", *store]
    yield ["classes", "kitchen", *store, "--json"]
    yield ["export", "--format", "json", *store, "-o", f"{out}.json"]
    yield ["export", _layers(path)[0], *store]
    yield ["export", "--effects", *store]
    if quick:
        return
    yield ["report", *store, "-o", f"{out}.html", "--units", "1"]
    yield ["compare", *_layers(path)[:2], *store]


def _layers(path: Path) -> list[str]:
    from ndissect.store.errors import NDError
    from ndissect.store.reader import Store

    with contextlib.suppress(NDError), Store(path) as store:
        return [*store.layer_names[:2], "features.0", "features.0"][:2]
    return ["features.0", "layer4.1.conv2"]


def run_command(arguments: list[str]) -> None:
    """``nd arguments``, its output thrown away as a terminal of UTF-8 would take it."""
    import typer

    out = io.TextIOWrapper(io.BytesIO(), encoding="utf-8", errors="surrogateescape")
    with (
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(out),
        contextlib.suppress(typer.Exit, typer.BadParameter.__base__),
    ):
        _command().main(arguments, standalone_mode=False)
        out.flush()


@functools.cache
def _command() -> Any:
    from typer.main import get_command

    from ndissect.tui.cli.main import app

    return get_command(app)


def browsed(path: Path, *, quick: bool) -> None:
    """All tables of the terminal UI, every row of them; ``quick``: of one layer."""
    from ndissect.tui.app.compare import compare
    from ndissect.tui.app.listing import Item
    from ndissect.tui.app.listing_cache import ListingCache
    from ndissect.tui.app.stores import stores_listing
    from ndissect.tui.app.unit import unit_listing

    _rows(stores_listing(path.parent, path))
    cache = ListingCache(path)
    session = cache.session
    assert session is not None
    try:
        for root in ("layers", "concepts", "summary"):
            listing = cache.root(root)
            _rows(listing)
            for row in [row for row in range(min(listing.count, 8)) if row not in listing.headings][
                : 1 if quick else 3
            ]:
                units = cache.units(listing.item(row))
                if units is not None:
                    _rows(units)
        items = []
        for view in session.views[: 1 if quick else 2]:
            for unit in range(min(view.units, 2 if quick else 4)):
                _rows(unit_listing(session, view.name, unit))
                items.append(Item("unit", view.name, unit))
        if len(items) > 1:
            _rows(compare(items[0], items[-1], session, lambda _: session))
    finally:
        session.close()


def _rows(listing: Any) -> None:
    for row in range(min(listing.count, 200)):
        listing.cells(row), listing.item(row), listing.copied(row), listing.faint(row)
        json.dumps(listing.plain(row)).encode()
    listing.fields()
    for column in listing.columns:
        if column.sort is not None:
            column.sort()
    "\n".join([listing.subject, *listing.notes]).encode("utf-8", "surrogateescape")


def look(path: Path, *, quick: bool = False) -> tuple[str, list[str], float]:
    """What went wrong, what was told, and the seconds of the longest look."""
    from ndissect.store.errors import NDError

    told, longest = [], 0.0
    with tempfile.TemporaryDirectory() as name:
        looks: list[Callable[[], None]] = [
            *(lambda a=a: run_command(a) for a in commands(path, Path(name), quick=quick)),
            lambda: browsed(path, quick=quick),
        ]
        for number, one in enumerate(looks):
            began = time.process_time()
            try:
                one()
            except NDError as e:
                told.append(e.message)
                if not e.hint and not e.message:
                    return f"look {number}: an error without words", told, longest
            except BaseException as e:
                from traceback import extract_tb

                at = extract_tb(e.__traceback__)[-1]
                return (
                    f"look {number}: {type(e).__name__}: {e} ({at.filename.rpartition('/')[2]}:{at.lineno})",
                    told,
                    longest,
                )
            longest = max(longest, time.process_time() - began)
        with contextlib.suppress(FileNotFoundError):  # what is JSON must be read by every program
            json.loads((Path(name) / "out.json").read_bytes(), parse_constant=_no_json)
    return "", told, longest


def _no_json(word: str) -> None:
    raise ValueError(f"{word} is no JSON")


def _memory() -> float:
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) / 1024


def _child(path: Path, to: int, *, quick: bool) -> None:
    faulthandler.enable()
    resource.setrlimit(resource.RLIMIT_CPU, (PROCESSOR, PROCESSOR))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    memory = _memory()
    try:
        problem, told, seconds = look(path, quick=quick)
    except BaseException as e:
        problem, told, seconds = f"{type(e).__name__}: {e}", [], 0.0
    found = {"problem": problem, "refused": told, "seconds": seconds}
    os.write(to, json.dumps(found | {"megabytes": _memory() - memory}).encode()[: 1 << 16])


def _serve() -> None:
    import ndissect.tui.app.app
    import ndissect.tui.cli.main
    import ndissect.tui.pictures.figures
    import ndissect.tui.reports.report  # noqa: F401

    with warnings.catch_warnings():  # of libraries, while they prepare themselves
        warnings.simplefilter("ignore")
        from store_factory import write_small

        with tempfile.TemporaryDirectory() as name:
            problem, *_ = look(write_small(Path(name) / "a.nd.h5", evidence=True))
            assert not problem, problem
    gc.freeze()  # or each process would copy all of this at its first collection
    for line in sys.stdin:
        ours, theirs = os.pipe()
        pid = os.fork()
        if pid == 0:
            _child(Path(line[1:-1]), theirs, quick=line.startswith("1"))
            os._exit(0)
        os.close(theirs)
        said = b"".join(iter(lambda: os.read(ours, 1 << 16), b""))  # noqa: B023
        os.close(ours)
        _, status = os.waitpid(pid, 0)
        dead = {"problem": f"a crash or a hang: {status}", "refused": [], "seconds": PROCESSOR, "megabytes": 0}
        print(json.dumps(json.loads(said) if said else dead), flush=True)


if __name__ == "__main__":
    _serve()
