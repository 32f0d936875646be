"""Commands run with symbolic links at every path that they write, as a program of its own that the tests start.

    python planted_links.py FOLDER RESULT.json [SCENARIO...]

Each scenario is run once, and the paths that it opens for writing, makes, renames and deletes are written down. Then it
is run again with a link to a victim, a file or a folder, at each of these paths; where its name held the number of the
process, at the name that it would have in this one. What was seen is written to RESULT.json. Every run is a process of
its own, forked from this one, in which what takes seconds to import is there already.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import sys
import traceback
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import cli

PRECIOUS = b"precious\n" * 40
# The folders that a user names: a link in their place is the user's own, and followed. Matplotlib's are not nd's.
USERS = frozenset({"cache", ".cache", ".config", ".local", ".local/state"})

Action = Sequence[str] | Callable[[], object]


@dataclass(frozen=True)
class Scenario:
    """What is run: a command, or a function of the package; ``result``: files that it must have written at its end."""

    action: Action
    result: tuple[str, ...] = ()
    before: tuple[Action, ...] = ()


@dataclass
class Run:
    """One run with links: where they lay, what became of the command, and which victims were harmed."""

    planted: list[str]
    code: int
    stderr: str
    harmed: list[str]
    missing: list[str]


@dataclass
class Probe:
    """All that was seen of one scenario; ``refused``: links for which the command ended with an error."""

    written: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    runs: list[Run] = field(default_factory=list)


# Recording


def _record(into: list[tuple[str, bool]]) -> None:
    """Write down (path, whether it is a folder) of everything that is written in this process from now on."""

    def path_of(path: Any, handle: int = -1) -> Path:
        beside = Path(f"/proc/self/fd/{handle}").readlink() if handle >= 0 else Path.cwd()
        return beside / os.fsdecode(path)

    def note(path: Path, is_folder: bool) -> None:
        into.append((os.path.normpath(path), is_folder))

    def hook(event: str, args: tuple[Any, ...]) -> None:
        if event == "open":
            path, _, flags = args
            writes = isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC)
            if writes and not isinstance(path, int) and not path_of(path).is_dir():
                note(path_of(path), False)
        elif event == "os.mkdir":
            note(path_of(args[0], args[2]), True)
        elif event == "os.rename":
            old, new = path_of(args[0], args[2]), path_of(args[1], args[3])
            is_folder = old.is_dir()
            note(old, is_folder)
            note(new, is_folder)
        elif event == "os.remove":
            note(path_of(args[0], args[1]), False)
        elif event == "os.rmdir":
            note(path_of(args[0], args[1]), True)

    sys.addaudithook(hook)


# Running


def _forked(folder: Path, action: Action, prepare: Callable[[], None], record: Path | None = None) -> tuple[int, str]:
    """The exit code and the standard error of ``action``, run in ``folder`` by a process of its own."""
    log = folder.with_name(f"{folder.name}.log")
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child == 0:
        code = 99
        try:
            os.chdir(folder)
            kept = {name: value for name, value in os.environ.items() if name == "ND_BRODEN_URL"}
            os.environ.clear()
            os.environ.update(cli.environment(folder, {"OMP_NUM_THREADS": "1", **kept}))
            os.dup2(os.open(os.devnull, os.O_RDWR), 0)
            os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 2)
            os.dup2(os.open(os.devnull, os.O_RDWR), 1)
            prepare()
            code = _run(action, record)
        except BaseException:
            traceback.print_exc()
        finally:
            with contextlib.suppress(Exception):
                sys.stderr.flush()
            os._exit(code)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status), log.read_text("utf-8", "replace")


def _run(action: Action, record: Path | None) -> int:
    from ndissect.store.errors import NDError
    from ndissect.tui.cli.main import main

    seen: list[tuple[str, bool]] = []
    if record is not None:
        _record(seen)
    try:
        if callable(action):
            try:
                action()
                code: Any = 0
            except NDError as e:
                print(f"nd: {e.message}\n    {e.hint}", file=sys.stderr)
                code = e.exit_code
        else:
            sys.argv = ["nd", *action]
            try:
                main()
                code = 0
            except SystemExit as e:
                code = e.code or 0
    finally:
        if record is not None:
            record.write_text(json.dumps({"pid": os.getpid(), "seen": list(seen)}))
    return int(code)


# Planting


def _paths(record: Path, folder: Path) -> dict[str, bool]:
    """The paths below ``folder`` that were written, with {pid} for the process's number -> whether it is a folder."""
    noted = json.loads(record.read_text())
    found: dict[str, bool] = {}
    for path, is_folder in noted["seen"]:
        if Path(path).is_relative_to(folder) and path != str(folder) and "__pycache__" not in path:
            inside = str(Path(path).relative_to(folder))
            if inside in USERS or inside.startswith((".cache/", ".config/")):
                continue
            name = re.sub(rf"(?<!\d){noted['pid']}(?!\d)", "{pid}", inside)
            found[name] = found.get(name, False) or is_folder
    return found


def _victim(place: Path, is_folder: bool) -> Path:
    if is_folder:
        (place / "inner").mkdir(parents=True)
        for path in (place / "mine.txt", place / "images.npy", place / "inner" / "mine.txt"):
            path.write_bytes(PRECIOUS)
    else:
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(PRECIOUS)
    return place


def _harmed(place: Path, is_folder: bool) -> bool:
    if not is_folder:
        return place.is_symlink() or not place.is_file() or place.read_bytes() != PRECIOUS
    whole = {"mine.txt", "images.npy", "inner", "inner/mine.txt"}
    files = [place / name for name in whole - {"inner"}]
    there = {str(p.relative_to(place)) for p in place.rglob("*")}
    return there != whole or any(p.read_bytes() != PRECIOUS for p in files)


def _with_links(template: Path, scenario: Scenario, links: dict[str, bool], scratch: Path) -> Run:
    """One run of the scenario with a link at each of ``links``."""
    shutil.rmtree(scratch, ignore_errors=True)
    folder, victims = scratch / "work", scratch / "victims"
    shutil.copytree(template, folder, symlinks=True)
    victim = {name: _victim(victims / str(n), is_folder) for n, (name, is_folder) in enumerate(links.items())}

    def plant() -> None:
        for name, target in victim.items():
            link = folder / name.replace("{pid}", str(os.getpid()))
            link.parent.mkdir(parents=True, exist_ok=True)
            if link.is_dir() and not link.is_symlink():
                shutil.rmtree(link)
            else:
                link.unlink(missing_ok=True)
            link.symlink_to(target)

    code, said = _forked(folder, scenario.action, plant)
    return Run(
        planted=list(links),
        code=code,
        stderr=said,
        harmed=[name for name, is_folder in links.items() if _harmed(victim[name], is_folder)],
        missing=[] if code else [name for name in scenario.result if not _is_made(folder / name)],
    )


def _is_made(path: Path) -> bool:
    return not path.is_symlink() and (path.is_dir() or (path.is_file() and path.stat().st_size > 0))


def probe(name: str, scenario: Scenario, base: Path) -> Probe:
    """Record the scenario, then run it with links everywhere, until all have been there in a run that went through or
    have been refused by name."""
    template = cli.workplace(base / name / "template")
    for action in scenario.before:
        code, said = _forked(template, action, lambda: None)
        assert code == 0, said
    scratch = base / name / "scratch"
    shutil.copytree(template, scratch / "work", symlinks=True)
    record = base / name / "record.json"
    code, said = _forked(scratch / "work", scenario.action, lambda: None, record)
    assert code == 0, said
    paths = _paths(record, scratch / "work")
    found = Probe(written=sorted(paths))
    inside = {str(parent) for path in paths for parent in Path(path).parents}
    # A link in place of a folder keeps the paths in it from being tried: folders are tried level by level.
    left = set(paths) & inside
    rounds = [set(paths) - inside]
    while left:
        rounds.append({path for path in left if not any(str(parent) in left for parent in Path(path).parents)})
        left -= rounds[-1]
    for some in rounds:
        _try({path: paths[path] for path in sorted(some)}, template, scenario, scratch, found)
    return found


def _try(links: dict[str, bool], template: Path, scenario: Scenario, scratch: Path, found: Probe) -> None:
    """Run with all the links; where that is refused, without the one that the error names, or with half of them."""
    if not links:
        return
    run = _with_links(template, scenario, links, scratch)
    found.runs.append(run)
    if run.code == 0 or run.harmed:
        return
    named = _named(links, run.stderr) if len(links) > 1 else [*links]
    found.refused += named
    names = [name for name in links if name not in named]
    halves = [names] if named else [names[::2], names[1::2]]
    for half in halves:
        _try({name: links[name] for name in half}, template, scenario, scratch, found)


def _named(links: Iterable[str], said: str) -> list[str]:
    """The links that an error names; a longer name before one that is a part of it."""
    line = next((line for line in said.splitlines() if line.startswith("nd: ")), "")
    named = [p for p in links if re.search(rf"(^|[\s/'(]){re.escape(Path(p).name)}($|[\s:.,;')])", line)]
    return named[:1] if len(named) < 2 else [max(named, key=len)]


# What is run


def _remember() -> None:
    from ndissect.tui.app.state import Bookmark, remember

    remember(Path("net-small.nd.h5"), Bookmark())


def _picture() -> None:
    from ndissect.store.reader import Store
    from ndissect.tui.app import pictures

    pictures._MOST_PICTURES = 1  # so that it deletes as well
    with Store(Path("net-small.nd.h5")) as store:
        for unit in range(3):
            pictures.draw(store.layer("units"), unit, truth=False)


def _listing() -> None:
    import numpy as np

    from ndissect.tui.app.export import export
    from ndissect.tui.app.layers import layers_listing
    from ndissect.tui.app.session import Session

    session = Session(Path("net-small.nd.h5"))
    export(layers_listing(session), np.arange(1), Path(), Path("net-small.nd.h5"))
    session.close()


def _synthetic() -> None:
    from ndissect.engine.data.synthetic import write_synthetic

    write_synthetic(Path("set"), 1, workers=1, image_size=32, grid=16, concepts=200)


def _synthetic_begun() -> None:
    from ndissect.engine.data.synthetic import write_synthetic

    def stop(done: int, of: int) -> None:
        raise KeyboardInterrupt

    with contextlib.suppress(KeyboardInterrupt):
        write_synthetic(Path("set"), 1, seed=1, workers=1, progress=stop, image_size=32, grid=16, concepts=200)


def _scenes() -> None:
    from ndissect.engine.demo.scenes import write

    write(Path("demo-x"), images=2)


SMALL = ("--data", "small", "-l", "units", "--quantile", "0.2", "--device", "cpu")
DISSECT = ("dissect", "net.py:network", *SMALL)
SHARDS = tuple((*DISSECT, "--null", "0", "--shard", f"{i}/2", "-o", "s.nd.h5") for i in (1, 2))
TABLE = ("export", "units", "-o", "table.csv")

SCENARIOS: dict[str, Scenario] = {
    "dissect": Scenario((*DISSECT, "-o", "out.nd.h5", "--force"), ("out.nd.h5",)),
    "shard": Scenario(SHARDS[0]),
    "merge": Scenario(("merge", "s.nd.h5", "--device", "cpu", "--force"), ("s.nd.h5",), SHARDS),
    "series": Scenario(("series", "net.py:network", *SMALL, "--plot", "s.svg"), ("s.svg",)),
    "rotate": Scenario(
        (
            "rotate",
            "net.py:network",
            *SMALL,
            "--alphas",
            "0,1",
            "--seeds",
            "1",
            "-o",
            "r.csv",
            "--plot",
            "r.png",
            "--force",
        ),
        ("r.csv", "r.png"),
    ),
    "sweep": Scenario(("sweep", "net.py:network", "--data", "small", "-l", "units", "--plot", "q.png"), ("q.png",)),
    "bench": Scenario(("bench", "net.py:network", "--data", "small", "-l", "units", "-n", "4", "--rounds", "1")),
    "compare": Scenario(
        ("compare", "net-small.nd.h5:units", "net-small.nd.h5:deep.pool", "--plot", "c.svg"), ("c.svg",)
    ),
    "overlay": Scenario(("overlay", "units:0", "--force"), ("units-0.png",)),
    "report": Scenario(("report", "--force"), ("net-small.html",)),
    "csv": Scenario((*TABLE, "--force"), ("table.csv",)),
    "json": Scenario(("export", "--format", "json", "-o", "t.json", "--force"), ("t.json",)),
    "parquet": Scenario(("export", "--format", "parquet", "-o", "t.parquet", "--force"), ("t.parquet",)),
    "milan": Scenario(("export", "units", "--format", "milan", "-o", "ex", "--force"), ("ex/units/units.npy",)),
    "milan again": Scenario(
        ("export", "units", "--format", "milan", "-o", "ex", "--force"),
        ("ex/units/units.npy",),
        (("export", "units", "--format", "milan", "-o", "ex"),),
    ),
    "import": Scenario(("import", "table.csv", "--force"), ("table.nd.h5",), (TABLE,)),
    "pack": Scenario(("data", "pack", "small")),
    "pack again": Scenario(("data", "pack", "small", "--force"), (), (("data", "pack", "small"),)),
    "pack removed": Scenario(("data", "pack", "small", "--remove"), (), (("data", "pack", "small"),)),
    "download": Scenario(("data", "download", "broden1_224"), ("cache/broden1_224/index.csv",)),
    "doctor": Scenario(("doctor",)),
    "browse: where it was": Scenario(_remember),
    "browse: pictures": Scenario(_picture),
    "browse: a listing": Scenario(_listing),
    "synthetic": Scenario(_synthetic, ("set/index.csv",), (_synthetic_begun,)),
    "scenes": Scenario(_scenes, ("demo-x/index.csv",)),
}


def main() -> None:
    """Probe the scenarios that are named, or all."""
    base, out, *names = sys.argv[1:]
    import torch

    import ndissect.engine.run.dissect
    import ndissect.tui.cli.dissect  # noqa: F401 - whatever takes long to import

    torch.set_num_threads(1)
    found = {}
    for name in names or SCENARIOS:
        found[name] = asdict(probe(name, SCENARIOS[name], Path(base).resolve()))
    Path(out).write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
