"""How quick `nd browse` is on a real pseudo-terminal: first paint, keys from press to last byte, bytes, memory.

The stores have 26,560 units x 1,197 concepts: in 50 layers, and all in one. First paint is timed as whole processes,
in turn with an app of Textual's that says hello. Keys are timed from the write to the terminal until the last byte of
the answer, after which it is silent for a while.

python tests/benchmarks/browse.py [--runs 11] [--keys 60] [--columns 80] [--lines 24]
"""

from __future__ import annotations

import argparse
import fcntl
import os
import pty
import select
import signal
import statistics
import struct
import subprocess
import sys
import tempfile
import termios
import time
from pathlib import Path

from large_store import large_store

ND = str(Path(sys.executable).parent / "nd")
HELLO = """
from textual.app import App
from textual.widgets import Label


class Hello(App):
    def compose(self):
        yield Label("hello world")


Hello().run()
"""
# A key's answer is over when nothing has come for so long.
_SILENCE = 0.06


class Terminal:
    """A command on a pseudo-terminal of its own."""

    def __init__(self, command: list[str], folder: Path, columns: int, lines: int) -> None:
        self._ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
        environment = {**os.environ, "TERM": "xterm-256color", "LC_ALL": "C.UTF-8", "HOME": str(folder)}
        for name in ("ND_STORE", "NO_COLOR", "XDG_STATE_HOME", "TEXTUAL_FPS", "TMUX"):
            environment.pop(name, None)
        self.began = time.perf_counter()
        self.process = subprocess.Popen(
            command, stdin=theirs, stdout=theirs, stderr=theirs, cwd=folder, env=environment, start_new_session=True
        )
        os.close(theirs)

    def read(self, timeout: float) -> bytes:
        """What comes within ``timeout`` seconds, b"" if nothing does."""
        return os.read(self._ours, 1 << 16) if select.select([self._ours], [], [], timeout)[0] else b""

    def until(self, words: bytes) -> float:
        """Seconds from the start until ``words`` have been printed."""
        seen = b""
        while words not in seen:
            piece = self.read(20)
            if not piece:
                raise TimeoutError(seen.decode("utf-8", "replace"))
            seen += piece
        return time.perf_counter() - self.began

    def settle(self, silence: float = 0.5) -> None:
        """Read until nothing comes any more."""
        while self.read(silence):
            pass

    def press(self, key: bytes) -> tuple[float, int]:
        """Seconds from ``key`` to the last byte of the answer, and how many bytes it has."""
        began = last = time.perf_counter()
        os.write(self._ours, key)
        size = 0
        wait = 1.0
        while piece := self.read(wait):
            last = time.perf_counter()
            size += len(piece)
            wait = _SILENCE
        return last - began, size

    def peak_memory(self) -> int:
        """The most memory that the process has used, in bytes."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM"))

    def close(self) -> None:
        """End the process."""
        self.process.send_signal(signal.SIGTERM)
        while self.process.poll() is None:
            try:
                self.read(0.05)
            except OSError:
                break
        self.process.wait()
        os.close(self._ours)


def first_paint(command: list[str], words: bytes, folder: Path, size: tuple[int, int], runs: int) -> None:
    """Print how long ``command`` takes to show ``words``, and the hello world beside it."""
    pairs = []
    for turn in range(runs + 1):
        pair = []
        for argv, shown in ((command, words), ([sys.executable, "-c", HELLO], b"hello world")):
            terminal = Terminal(argv, folder, *size)
            pair.append(terminal.until(shown))
            terminal.settle(0.2)
            terminal.close()
        if turn:  # the first fills the caches
            pairs.append(pair)
    ours, hello = (statistics.median(x) for x in zip(*pairs, strict=True))
    ratio = statistics.median(a / b for a, b in pairs)
    name = " ".join(["nd", *command[1:]])
    print(f"first paint, {name:<36} {ours * 1000:5.0f} ms   hello world {hello * 1000:5.0f} ms   {ratio:.2f} (2.5)")


def keys(terminal: Terminal, name: str, presses: list[bytes], limit: str) -> None:
    """Print the medians of time and bytes over ``presses``."""
    found = [terminal.press(key) for key in presses]
    seconds, sizes = zip(*found, strict=True)
    print(
        f"{name:<34} {statistics.median(seconds) * 1000:6.1f} ms (90 %: "
        f"{statistics.quantiles(seconds, n=10)[-1] * 1000:.1f})  {statistics.median(sizes):6.0f} bytes"
        f" (most {max(sizes)})   target {limit}"
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=11)
    parser.add_argument("--keys", type=int, default=60)
    parser.add_argument("--columns", type=int, default=80)
    parser.add_argument("--lines", type=int, default=24)
    parser.add_argument("--stores", type=Path, help="Keep the stores in this folder, and use those that are there.")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.stores or Path(temporary)
        for layers in (1, 50):
            if not (folder / f"large{layers}.nd.h5").exists():
                large_store(folder / f"large{layers}.nd.h5", layers)
        size = arguments.columns, arguments.lines
        print(f"{size[0]} x {size[1]}, 26,560 units x 1,197 concepts; {arguments.runs} runs, {arguments.keys} keys")
        if arguments.runs:
            first_paint([ND, "browse", "large50.nd.h5"], b"layer3.0.conv", folder, size, arguments.runs)
            first_paint([ND, "browse", "large1.nd.h5", "layer4"], b"1/26560", folder, size, arguments.runs)
        terminal = Terminal([ND, "browse", "large1.nd.h5", "layer4"], folder, *size)
        terminal.until(b"1/26560")
        terminal.settle(1.5)
        n = arguments.keys
        terminal.press(b"j")
        keys(terminal, "cursor down (j)", [b"j"] * (size[1] - 6) + [b"k", b"j"] * ((n - size[1] + 6) // 2), "10 ms")
        keys(terminal, "scroll by one (j at the bottom)", [b"j"] * n, "")
        keys(terminal, "page down (pgdn)", [b"\x1b[6~"] * n, "25 ms, 5 kB")
        keys(terminal, "page up (pgup)", [b"\x1b[5~"] * n, "25 ms, 5 kB")
        terminal.press(b"/")
        typed = [bytes([c]) for c in b"cat:object iou>0.1 !3 unit:1-20000"] + [b"\x7f"] * 34
        keys(terminal, "a letter of a filter", typed, "50 ms")
        terminal.press(b"\x1b")
        terminal.settle()
        terminal.press(b"\r")
        keys(terminal, "next unit's page (n)", [b"n"] * n, "")
        print(f"peak memory {terminal.peak_memory() / 1e6:.0f} MB   target 150 MB")
        terminal.close()
