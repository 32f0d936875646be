"""Running the real ``nd`` in real processes: piped, on a terminal, stopped half-way.

    done = nd("inspect", "units", "--json", folder=workplace)
    done.returncode, done.stdout, done.stderr

``workplace`` makes a folder with a small data set, a network whose units are its concepts, and the store of a real
``nd dissect`` over them.
"""

from __future__ import annotations

import atexit
import errno
import fcntl
import functools
import json
import os
import pty
import re
import select
import shutil
import struct
import subprocess
import sys
import tempfile
import termios
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from broden_factory import Concept, Picture, write_broden

T = TypeVar("T")

#: The executable that was installed beside the interpreter that runs the tests.
ND = Path(sys.executable).with_name("nd")
SIZE, IMAGES = 32, 12
#: Forward passes in which a network is tried on the first images, after the one that looks at its layers: the last asks
#: for class scores. In batches of more than eight images several are tried at once.
EXAMINED, EXAMINED_TOGETHER = 23, 8
CONCEPTS = (
    Concept(3, "tree"),
    Concept(4, "traffic_light"),
    Concept(9, "wheel", "part"),
    Concept(10, "red-c", "color"),
    Concept(11, "street-s", "scene"),
)

# Channel k of a picture shows concept k where it is, so a unit that is a channel detects it with IoU 1.
NETWORK = '''
import torch
from torch import nn


class Net(nn.Module):
    """Layers: units (tree, wheel, red, and a dead one), deep.pool (the same, coarser), pooled (one value an image).

    unused is none.
    """

    def __init__(self):
        super().__init__()
        self.units = nn.Identity()
        self.deep = nn.Sequential()
        self.deep.add_module("pool", nn.MaxPool2d(4))
        self.pooled = nn.AdaptiveAvgPool2d(1)
        self.unused = nn.Identity()
        self.scores = nn.Linear(4, 2)

    def forward(self, x):
        x = self.units(torch.cat([x, torch.zeros_like(x[:, :1])], 1))
        return self.scores(self.pooled(self.deep(x)).flatten(1))


def network():
    return Net(), lambda x: x.float()
'''

_IMPORT_TORCH = ("bench", "dissect", "layers", "rotate", "series", "sweep")
DISSECT = ("dissect", "net.py:network", "--data", "small", "-l", "units", "-l", "deep.pool", "--quantile", "0.2")


def environment(folder: Path, more: Mapping[str, str] | None = None) -> dict[str, str]:
    """What a user's shell sets, and none of what the shell of the tests may have set."""
    return {
        "PATH": f"{ND.parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
        "HOME": str(folder),
        "ND_CACHE": str(folder / "cache"),
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "2"),
        "no_proxy": "*",
        **(more or {}),
    }


def nd(
    *args: str,
    folder: Path,
    env: Mapping[str, str] | None = None,
    before: str = "",
    timeout: float = 120,
) -> subprocess.CompletedProcess[str]:
    """``nd args`` run in ``folder`` to its end, piped; ``before`` is Python that sets the process's limits first.

    Commands of which all that takes long is to import torch are forked from a process that has done so.
    """
    if args and args[0] in _IMPORT_TORCH and not before and "PYTHONPATH" not in (env or {}):
        from faults import nd_in

        done = nd_in(folder, *args, env=env, timeout=timeout)
        return subprocess.CompletedProcess([str(ND), *args], done.returncode, done.stdout, done.stderr)
    start = [sys.executable, "-c", f"{before}\nimport os, sys; os.execv(sys.argv[1], sys.argv[1:])"] if before else []
    return subprocess.run(
        [*start, str(ND), *args],
        cwd=folder,
        env=environment(folder, env),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        timeout=timeout,
    )


def in_parallel(work: Callable[..., T], items: Iterable[Any]) -> list[T]:
    """``work`` of each item, two at a time: most of a test's time is another process that starts."""
    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(work, items))


def json_of(*args: str, folder: Path, env: Mapping[str, str] | None = None) -> Any:
    """What ``nd args --json`` prints; the command must succeed."""
    done = nd(*args, "--json", folder=folder, env=env)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def rows_of(*args: str, folder: Path) -> list[dict[str, str]]:
    """The table that ``nd args`` prints to a pipe: a dict a line, by the header's titles."""
    done = nd(*args, folder=folder)
    assert done.returncode == 0, done.stderr
    header, *lines = [line.split("\t") for line in done.stdout.splitlines()]
    assert all(len(line) == len(header) for line in lines)
    return [dict(zip(header, line, strict=True)) for line in lines]


def failed(done: subprocess.CompletedProcess[str], code: int, *said: str) -> None:
    """Assert a failure as it is promised: the exit code, nothing printed, two lines that hold each of ``said``."""
    assert done.returncode == code, (done.returncode, done.stdout, done.stderr)
    assert done.stdout == ""
    two_lines(done.stderr, *said)


def two_lines(text: str, *said: str) -> None:
    """Assert that an error is two lines, what failed and what to do, that hold each of ``said``, and no traceback."""
    lines = text.splitlines()
    assert len(lines) == 2, text
    assert lines[0].startswith("nd: "), text
    assert lines[1].startswith("    "), text
    assert len(lines[1].split()) >= 2, text
    assert "Traceback" not in text
    for words in said:
        assert words in text, text


def files_in(folder: Path) -> set[str]:
    """The names of all files below ``folder``, hidden ones too; not what Python keeps of a network's source."""
    return {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file() and "__pycache__" not in p.parts}


class Terminal:
    """``nd args`` on a terminal of its own: ``columns`` x ``lines``, as a person sees it.

    with Terminal("import", "x.csv", folder=folder) as terminal:
        terminal.wait_for("Replace it?")
        terminal.type("y\\n")
    terminal.code, terminal.text
    """

    def __init__(
        self,
        *args: str,
        folder: Path,
        columns: int = 80,
        lines: int = 24,
        env: Mapping[str, str] | None = None,
        timeout: float = 120,
    ) -> None:
        self._ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
        # The terminal that the leader of a new session opens is its own: ctrl+c reaches this process and no other.
        name = os.ttyname(theirs)
        self.process = subprocess.Popen(
            ["sh", "-c", 'exec "$@" <"$0" >"$0" 2>&1', name, str(ND), *args],
            cwd=folder,
            env=environment(folder, {"TERM": "xterm-256color", "LC_ALL": "C.UTF-8"} | dict(env or {})),
            start_new_session=True,
        )
        self._theirs = theirs  # open until the process has it open, or there would be nothing to read from
        self._deadline = time.monotonic() + timeout
        self._seen = b""

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *error: object) -> None:
        if error[0] is None:
            while self._read():
                pass
            self.process.wait(max(1, self._deadline - time.monotonic()))
        else:
            self.process.kill()
            self.process.wait()
        os.close(self._ours)
        if self._theirs >= 0:
            os.close(self._theirs)

    def _read(self) -> bool:
        """Take what has been printed; False at the end."""
        if time.monotonic() > self._deadline:
            raise TimeoutError(self.text)
        try:
            if select.select([self._ours], [], [], 0.5)[0]:
                piece = os.read(self._ours, 1 << 16)
                if self._theirs >= 0:
                    os.close(self._theirs)
                    self._theirs = -1
                self._seen += piece
                return piece != b""
        except OSError as e:  # how Linux ends a terminal whose last process has gone
            if e.errno != errno.EIO:
                raise
            return False
        return True

    def wait_for(self, words: str) -> None:
        """Read until ``words`` have been printed."""
        while words not in self.text:
            assert self._read(), self.text

    def type(self, keys: str) -> None:
        """Press keys."""
        os.write(self._ours, keys.encode())

    @property
    def raw(self) -> str:
        """Everything that was printed, with its escape sequences."""
        return self._seen.decode("utf-8", "replace")

    @property
    def text(self) -> str:
        """Everything that was printed, without escape sequences, line ends as usual."""
        plain = re.sub(r"\x1b(\[[0-?]*[ -/]*[@-~]|\][^\x07]*\x07|[@-Z\\-_])", "", self.raw)
        return plain.replace("\r\n", "\n")

    @property
    def lines(self) -> list[str]:
        """The printed lines."""
        return self.text.splitlines()

    @property
    def code(self) -> int:
        """The exit code."""
        return int(self.process.returncode)


def on_terminal(*args: str, folder: Path, **more: Any) -> Terminal:
    """``nd args`` on a terminal, run to its end."""
    with Terminal(*args, folder=folder, **more) as terminal:
        pass
    return terminal


def pictures() -> list[Picture]:
    """Pictures with a tree, a wheel and a red area in one block each, which channels 0, 1 and 2 show."""
    rng = np.random.default_rng(5)
    found = []
    for i in range(IMAGES):
        masks = np.zeros((3, SIZE, SIZE), bool)
        for mask in masks:
            y, x = rng.integers(0, SIZE - 10, 2)
            mask[y : y + rng.integers(6, 10), x : x + rng.integers(6, 10)] = True
        maps: dict[str, Any] = {
            "object": np.where(masks[0], 3, 0).astype(np.uint16),
            "part": np.where(masks[1], 9, 0).astype(np.uint16),
            "color": np.where(masks[2], 10, 0).astype(np.uint16),
        }
        if i == 0:
            maps["object"][:4, :4] = 4
        pixels = np.moveaxis(masks, 0, 2).astype(np.uint8) * 200
        found.append(Picture(maps, {"scene": [11] if i % 3 == 0 else []}, pixels=pixels))
    return found


def write_inputs(folder: Path) -> Path:
    """``folder`` with the data set ``small`` and the network ``net.py:network``."""
    folder.mkdir(parents=True, exist_ok=True)
    write_broden(folder / "small", pictures(), CONCEPTS, grid=(SIZE, SIZE))
    (folder / "net.py").write_text(NETWORK)
    return folder


@functools.cache
def _dissected() -> tuple[Path, subprocess.CompletedProcess[str]]:
    folder = write_inputs(Path(tempfile.mkdtemp(prefix="nd-cli-")))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    done = nd(*DISSECT, folder=folder)
    assert done.returncode == 0, done.stderr
    return folder, done


def the_dissection() -> subprocess.CompletedProcess[str]:
    """The one ``nd dissect`` behind every ``workplace``: its output."""
    return _dissected()[1]


def workplace(folder: Path) -> Path:
    """``folder`` with the data set, the network and the store ``net-small.nd.h5`` of a real run, made once."""
    shutil.copytree(_dissected()[0], folder, dirs_exist_ok=True)
    return folder


def wait_until(true: Callable[[], object], seconds: float = 60) -> None:
    """Wait for something that another process does."""
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def wait_for(marker: Path, process: subprocess.Popen[str] | None = None) -> None:
    """Wait until the file ``marker`` is there, and ``process``, which will make it, still runs."""
    deadline = time.monotonic() + 120
    while not marker.exists():
        assert process is None or process.poll() is None, process and process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)
