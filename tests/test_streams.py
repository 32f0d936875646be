"""Standard streams that are closed, or whose other end has gone: work is done to its end, and nothing is printed into
files.
"""

from __future__ import annotations

import itertools
import os
import pty
import shlex
import signal
import subprocess
from pathlib import Path

import cli
import pytest

STREAMS = ("<&-", ">&-", "2>&-")
CLOSED = [closed for n in (1, 2, 3) for closed in itertools.combinations(STREAMS, n)]


def shell(place: Path, *args: str, streams: str) -> subprocess.CompletedProcess[bytes]:
    """``nd args`` run by a shell that redirects its ``streams``."""
    line = f"exec {shlex.join([str(cli.ND), *args])} {streams}"
    return subprocess.run(
        ["bash", "-c", line], cwd=place, env=cli.environment(place), stdin=subprocess.DEVNULL, capture_output=True
    )


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return cli.workplace(tmp_path_factory.mktemp("streams"))


def whole(place: Path, store: str) -> bool:
    found = cli.json_of("inspect", "-s", store, folder=place)
    return [layer["layer"] for layer in found["layers"]] == ["units", "deep.pool"]


def test_a_run_without_any_stream_ends_with_its_store_written(place: Path) -> None:
    def run(number: int) -> None:
        done = shell(place, *cli.DISSECT, "-o", f"closed{number}.nd.h5", streams=" ".join(CLOSED[number]))
        assert done.returncode == 0, done.stderr
        assert b"Traceback" not in done.stderr
        assert whole(place, f"closed{number}.nd.h5")

    cli.in_parallel(run, [CLOSED.index((">&-",)), CLOSED.index(STREAMS)])


def test_a_run_whose_readers_have_gone_ends_with_its_store_written(place: Path) -> None:
    command = [str(cli.ND), *cli.DISSECT, "-o", "gone.nd.h5"]
    process = subprocess.Popen(
        command,
        cwd=place,
        env=cli.environment(place),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    process.stderr.close()
    assert process.wait(120) == 0
    assert whole(place, "gone.nd.h5")


@pytest.mark.parametrize("ignored", [True, False], ids=["nohup", "hung up"])
def test_a_run_whose_terminal_is_gone(place: Path, ignored: bool) -> None:
    """With SIGHUP ignored it goes on to its store; else it saves what it counted, and the same command goes on."""
    store = f"terminal{ignored:d}.nd.h5"
    (place / f"slow{ignored:d}.py").write_text(SLOW)
    ours, theirs = pty.openpty()
    args = [str(cli.ND), "dissect", f"slow{ignored:d}.py:network", *cli.DISSECT[2:], "-b", "2", "-o", store]
    started = place / f"started{ignored:d}"
    env = cli.environment(place, {"TERM": "xterm-256color", "STARTED": str(started)})
    process = subprocess.Popen(
        ["sh", "-c", ("trap '' HUP; " if ignored else "") + 'exec "$@" <"$0" >"$0" 2>&1', os.ttyname(theirs), *args],
        cwd=place,
        env=env,
        start_new_session=True,
    )
    os.set_blocking(ours, False)
    cli.wait_for(started)
    os.close(theirs)
    os.close(ours)  # the terminal is gone, and its processes are sent SIGHUP
    code = process.wait(120)
    if ignored:
        assert code == 0
        assert whole(place, store)
    else:
        assert code == 128 + signal.SIGHUP
        again = cli.nd(*args[1:], folder=place, env={"STARTED": str(started)})
        assert again.returncode == 0, again.stderr
        assert whole(place, store)


SLOW = """
import os, time
from pathlib import Path

from net import network as whole


def network():
    made, transform = whole()
    calls = iter(range(1000))

    def look(*given):
        if next(calls) == 2:
            Path(os.environ["STARTED"]).touch()
        time.sleep(0.3)

    made.units.register_forward_hook(look)
    return made, transform
"""


@pytest.mark.parametrize("closed", CLOSED, ids=" ".join)
def test_looking_something_up_without_streams(place: Path, closed: tuple[str, ...]) -> None:
    before = cli.files_in(place)
    done = shell(place, "inspect", "units", "-s", "net-small.nd.h5", streams=" ".join(closed))
    assert done.returncode == 0, done.stderr
    assert done.stderr == b""
    assert (b"tree" in done.stdout) == (">&-" not in closed)
    assert cli.files_in(place) == before
    failed = shell(place, "inspect", "nothing", "-s", "net-small.nd.h5", streams=" ".join(closed))
    assert failed.returncode == 2
    if "2>&-" not in closed:
        cli.two_lines(failed.stderr.decode(), "nothing")


def test_files_that_are_written_are_not_printed_into(place: Path) -> None:
    """A file that is opened first where streams are closed would be number 0, 1 or 2."""
    for args in (("export", "units", "-o", "units.csv"), ("report", "-o", "report.html"), ("overlay", "units:0")):
        open_ = cli.nd(*args, "-s", "net-small.nd.h5", folder=place)
        assert open_.returncode == 0, open_.stderr
    there = {name: (place / name).read_bytes() for name in ("units.csv", "report.html", "units-0.png")}
    for args in (("export", "units", "-o", "units.csv", "-f"), ("report", "-o", "report.html", "-f")):
        done = shell(place, *args, "-s", "net-small.nd.h5", streams=" ".join(STREAMS))
        assert done.returncode == 0
    assert (place / "units.csv").read_bytes() == there["units.csv"]
    assert (place / "report.html").read_bytes() == there["report.html"]


def test_a_reader_that_has_seen_enough_is_no_failure(place: Path) -> None:
    line = f"{shlex.quote(str(cli.ND))} export units -s net-small.nd.h5 | true; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", line], cwd=place, env=cli.environment(place), capture_output=True, text=True)
    assert done.stdout == "0\n"
    assert "Traceback" not in done.stderr
    assert "BrokenPipe" not in done.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_messages_that_cannot_be_written_are_no_failure(place: Path) -> None:
    assert shell(place, "inspect", "nothing", "-s", "net-small.nd.h5", streams="2>/dev/full").returncode == 2
    done = shell(place, "import", "none.csv", streams="2>/dev/full")
    assert done.returncode == 1
    assert shell(place, "inspect", "units", "-s", "net-small.nd.h5", streams="2>/dev/full").returncode == 0


def test_an_output_that_takes_no_writing_is_told(place: Path) -> None:
    done = shell(place, "inspect", "units", "-s", "net-small.nd.h5", streams="1</dev/null")
    assert done.returncode == 1
    cli.two_lines(done.stderr.decode(), "cannot write to the standard output")


# Little memory

LIMITS = (100_000, 150_000, 200_000, 400_000, 1_000_000, 2_000_000, 3_000_000, 4_000_000)


@pytest.mark.parametrize("args", [("--help",), ("inspect", "units", "-s", "net-small.nd.h5")], ids=["help", "inspect"])
def test_looking_up_with_limited_addresses(place: Path, args: tuple[str, ...]) -> None:
    for kilobytes in LIMITS:
        before = f"import resource; resource.setrlimit(resource.RLIMIT_AS, ({kilobytes << 10},) * 2)"
        done = cli.nd(*args, folder=place, before=before)
        assert "Traceback" not in done.stderr, kilobytes
        assert "defect" not in done.stderr, kilobytes
        if kilobytes >= 200_000:
            assert done.returncode == 0, (kilobytes, done.stderr)


@pytest.mark.parametrize("command", ["dissect", "doctor"])
def test_torch_with_limited_addresses(place: Path, command: str) -> None:
    for kilobytes in (200_000, 800_000):
        before = f"import resource; resource.setrlimit(resource.RLIMIT_AS, ({kilobytes << 10},) * 2)"
        args = (*cli.DISSECT, "-f") if command == "dissect" else (command,)
        cli.failed(cli.nd(*args, folder=place, before=before), 1, "torch cannot be loaded", "ulimit -v")


RAISES = {
    "MemoryError()": ("memory does not suffice", "--memory"),
    "MemoryError('Unable to allocate 9 GiB')": ("Unable to allocate 9 GiB", "--memory"),
    "ImportError('libtorch.so: failed to map segment from shared object')": ("memory does not suffice", "--memory"),
    "RuntimeError('std::bad_alloc')": ("memory does not suffice", "--memory"),
    'RuntimeError("can\'t start new thread")': ("no further thread", "ulimit -u"),
    "RecursionError('maximum recursion depth exceeded')": ("nested too deeply", "damaged"),
    "OSError(24, 'Too many open files', 'x.h5')": ("x.h5: Too many open files", "ulimit -n"),
    "OSError(28, 'No space left on device')": ("No space left on device", "free some space"),
    "PermissionError(13, 'Permission denied', 'x')": ("x: Permission denied", "may be used"),
    "UnicodeEncodeError('utf-8', '\\ud800', 0, 1, 'surrogates not allowed')": ("not Unicode", "rename"),
}


@pytest.mark.parametrize("error", RAISES)
def test_what_the_machine_does_is_no_defect(place: Path, error: str, tmp_path: Path) -> None:
    """Errors of these kinds, wherever they come from, are two lines that say what to do."""
    source = f"import ndissect.store.files as f\ndef broken(*given):\n    raise {error}\nf.find_store = broken\n"
    (tmp_path / "sitecustomize.py").write_text(source)
    done = cli.nd("inspect", folder=place, env={"PYTHONPATH": str(tmp_path)})
    cli.failed(done, 1, *RAISES[error])
    assert "unexpected" not in done.stderr
    assert "defect" not in done.stderr
