"""A real terminal that can be looked at: a shell in a private tmux, driven by keys, read as a person sees it.

    with Tmux(folder) as tmux:
        tmux.run("nd browse")
        tmux.wait_for("layers")
        tmux.press("j", "Enter")
        tmux.screen()

The server is one of its own, without anyone's configuration, and is gone at the end.
"""

from __future__ import annotations

import itertools
import os
import shlex
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from cli import environment

#: The program, None where it is not installed.
TMUX = shutil.which("tmux")
PROMPT = "ready:"
# Seconds after which something that should have happened by now will not happen any more.
PATIENCE = 60

_numbers = itertools.count()


class Tmux:
    """A shell in ``folder`` on a terminal of ``columns`` x ``lines``; ``env`` is added to what a user's shell sets."""

    def __init__(
        self, folder: Path, *, columns: int = 80, lines: int = 24, env: Mapping[str, str] | None = None
    ) -> None:
        assert TMUX is not None
        self._name = f"nd-{os.getpid()}-{next(_numbers)}"
        self._sockets = tempfile.mkdtemp(prefix="nd-tmux-")  # a short path: a socket's name may have 100 characters
        self._env = environment(folder, {"TERM": "xterm-256color", "LC_ALL": "C.UTF-8"})
        self._env |= {"TMUX_TMPDIR": self._sockets, "ENV": "", **(env or {})}
        self.folder = folder
        start = ("set", "-g", "status", "off", ";", "set", "-s", "set-clipboard", "on", ";")
        self._tmux(*start, "new-session", "-d", "-x", str(columns), "-y", str(lines), f"PS1='{PROMPT} ' exec sh -i")

    def __enter__(self) -> Tmux:
        try:
            self.wait_for(PROMPT)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        subprocess.run([*self._command, "kill-server"], env=self._env, capture_output=True, timeout=PATIENCE)
        shutil.rmtree(self._sockets, ignore_errors=True)

    @property
    def _command(self) -> list[str]:
        return [str(TMUX), "-L", self._name, "-f", os.devnull]

    def _tmux(self, *args: str) -> str:
        done = subprocess.run(
            [*self._command, *args],
            cwd=self.folder,
            env=self._env,
            capture_output=True,
            encoding="utf-8",
            timeout=PATIENCE,
        )
        assert done.returncode == 0, (args, done.stderr)
        return done.stdout

    # What a person does

    def press(self, *keys: str) -> None:
        """Press keys, by tmux's names: ``j``, ``Enter``, ``C-c``."""
        self._tmux("send-keys", "--", *keys)

    def type(self, text: str) -> None:
        """Type text as it is."""
        self._tmux("send-keys", "-l", "--", text)

    def run(self, command: str) -> None:
        """Clear the shell's screen and run a command line there, which must be at its prompt."""
        self.type(f"clear; {command}")
        self.press("Enter")

    def resize(self, columns: int, lines: int) -> None:
        """Make the terminal larger or smaller."""
        self._tmux("resize-window", "-x", str(columns), "-y", str(lines))

    # What a person sees

    def screen(self) -> list[str]:
        """The lines on the screen, without the spaces at their ends."""
        return [line.rstrip() for line in self._tmux("capture-pane", "-p").split("\n")[:-1]]

    def ask(self, *names: str) -> dict[str, str]:
        """What tmux knows of the terminal, such as ``alternate_on``, ``cursor_flag``, ``mouse_any_flag``."""
        told = self._tmux("display-message", "-p", "\t".join(f"#{{{name}}}" for name in names))
        return dict(zip(names, told.rstrip("\n").split("\t"), strict=True))

    def copied(self) -> str:
        """What was put on the clipboard last, "" where nothing was."""
        done = subprocess.run([*self._command, "show-buffer"], env=self._env, capture_output=True, timeout=PATIENCE)
        return done.stdout.decode() if done.returncode == 0 else ""

    def wait_until(self, true: Callable[[list[str]], object]) -> list[str]:
        """Look at the screen until it is as wished; returns it."""
        deadline = time.monotonic() + PATIENCE
        while True:
            screen = self.screen()
            if true(screen):
                return screen
            if time.monotonic() > deadline:
                raise TimeoutError("\n".join(["the screen never came to be as expected:", *screen]))
            time.sleep(0.03)

    def wait_for(self, *words: str, gone: tuple[str, ...] = ()) -> list[str]:
        """Look at the screen until it shows all of ``words`` and none of ``gone``; returns it."""

        def there(screen: list[str]) -> bool:
            text = "\n".join(screen)
            return all(word in text for word in words) and not any(word in text for word in gone)

        try:
            return self.wait_until(there)
        except TimeoutError as e:
            raise TimeoutError(f"wanted {words}, gone {gone}\n{e}") from None

    def wait_for_file(self, path: Path, lines: int = 1) -> list[str]:
        """Wait until a program has written that many lines; returns them."""
        self.wait_until(lambda _: path.exists() and path.read_text().count("\n") >= lines)
        return path.read_text().splitlines()

    def result_of(self, command: str, name: str) -> str:
        """What ``command`` prints on this terminal, kept in the file ``name`` of the folder."""
        path = self.folder / name
        self.run(
            f"{command} > {shlex.quote(f'{path}.part')}; mv {shlex.quote(f'{path}.part')} {shlex.quote(str(path))}"
        )
        self.wait_until(lambda _: path.exists())
        return path.read_text()
