"""The process that runs the network, as the painting screen sees it: one line of JSON asked, one answered.

What is asked and answered is said in ``engine/experiments/painting_process.py``, which this room does not import.
While the process works, only the newest wish is kept: what was wished for in between is never drawn.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import io
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from PIL import Image

from ndissect.store.errors import NDError, first_line
from ndissect.store.text import one_line
from ndissect.tui.app.painting_edits import PaintEdit

# A line of an answer holds a picture.
_MOST_BYTES = 256 << 20
# Lines of the standard error that are kept to say why the process ended, and seconds that it may take to end.
_LAST, _PATIENCE = 20, 0.5


@dataclass(frozen=True)
class Ready:
    """What the process says first: the network is there."""

    layer: str
    concepts: tuple[str, ...]
    map_size: tuple[int, int]
    samples: int
    units: int
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Wish:
    """A picture that is wanted: the sample ``number`` after ``edits``."""

    number: int
    edits: tuple[PaintEdit, ...] = ()


@dataclass(frozen=True)
class Effect:
    """What edits did: pixels of each concept (name, before, after); how many changed outside and inside of cells."""

    concepts: tuple[tuple[str, int, int], ...]
    changed_outside: int
    pixels_outside: int
    changed_inside: int
    pixels_inside: int


@dataclass(frozen=True)
class Drawn:
    """A wish that was fulfilled after ``seconds``; ``before`` is the picture of the sample.

    ``effect`` is None until the pixels are counted, and where there are no edits.
    """

    wish: Wish
    picture: Image.Image
    before: Image.Image
    effect: Effect | None
    seconds: float


class Listener(Protocol):
    """Who is told what the process does, between two messages of the app."""

    def when_ready(self, ready: Ready) -> None:
        """The network is there."""

    def when_drawn(self, drawn: Drawn) -> None:
        """There is a picture."""

    def when_refused(self, wish: Wish, error: NDError) -> None:
        """``wish`` cannot be fulfilled; what was drawn before stays."""

    def when_saved(self, wish: Wish, picture: str, edits: str) -> None:
        """``wish`` lies in these two files."""

    def when_not_saved(self, error: NDError) -> None:
        """The files could not be written."""

    def when_ended(self, why: str) -> None:
        """The process has ended, which nobody asked it to."""


class _EndedError(Exception):
    """The process does not answer any more."""


class PaintingServer:
    """The process that ``command`` starts. ``listener`` is told what it does."""

    def __init__(self, command: Sequence[str], listener: Listener) -> None:
        self._command, self._listener = list(command), listener
        self._process: asyncio.subprocess.Process | None = None
        self._said: list[str] = []
        self._sample: int | None = None
        self._before: Image.Image | None = None
        self._wish: Wish | None = None
        self._wish_made = 0.0
        self._answered: Wish | None = None
        self._save_as: str | None = None
        self._news = asyncio.Event()

    @property
    def busy(self) -> bool:
        """Whether something is wished for that is not drawn yet."""
        return self._wish is not None and self._wish != self._answered

    @property
    def last_wish(self) -> Wish | None:
        """The newest wish that was not refused."""
        return self._wish

    def wish(self, wish: Wish) -> None:
        """Ask for a picture, in place of any that is not begun."""
        self._wish, self._wish_made = wish, time.monotonic()
        self._news.set()

    def save(self, path: str) -> None:
        """Ask for the picture to be written to ``path`` when the last wish is drawn, and its edits beside it."""
        self._save_as = path
        self._news.set()

    async def run(self) -> None:
        """Start the process and do what is wished for, until it ends or ``close`` is called."""
        self._sample = self._answered = self._save_as = None
        self._said.clear()
        try:
            process = self._process = await asyncio.create_subprocess_exec(
                *self._command,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                limit=_MOST_BYTES,
                start_new_session=True,  # ctrl+c is a key of the screen
            )
        except OSError as e:
            self._listener.when_ended(f"it cannot be started: {e.strerror}")
            return
        listening = asyncio.create_task(self._listen(process))
        try:
            self._listener.when_ready(_ready(await self._answer(process)))
            while True:
                await self._work(process)
                await self._wait_for_news(process)
        except (_EndedError, NDError) as e:
            await self.close()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(asyncio.shield(listening), _PATIENCE)
            self._listener.when_ended(e.message if isinstance(e, NDError) else self._last_words(process))
        finally:
            listening.cancel()

    async def close(self) -> None:
        """End the process."""
        process = self._process
        if process is None or process.returncode is not None:
            return
        assert process.stdin is not None
        process.stdin.close()  # the end of the input ends it, where it is not at work
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(process.wait(), _PATIENCE)
        if process.returncode is None:
            process.kill()
            await process.wait()

    async def _wait_for_news(self, process: asyncio.subprocess.Process) -> None:
        """Return when there is something to do; _EndedError where the process ends before."""
        news, end = asyncio.create_task(self._news.wait()), asyncio.create_task(process.wait())
        try:
            await asyncio.wait((news, end), return_when=asyncio.FIRST_COMPLETED)
        finally:
            news.cancel()
            end.cancel()
        if not news.done() or news.cancelled():
            raise _EndedError
        self._news.clear()

    async def _work(self, process: asyncio.subprocess.Process) -> None:
        """Draw the newest wish and write what is to be saved, until there is nothing to do."""
        while (wish := self._wish) is not None and (wish != self._answered or self._save_as):
            made = self._wish_made
            try:
                if wish != self._answered:
                    await self._draw(process, wish, made)
            except NDError as e:
                if self._wish is wish:
                    self._wish, self._save_as = self._answered, None
                self._listener.when_refused(wish, e)
                continue
            if self._wish is wish and self._save_as:
                await self._write(process, wish, self._save_as)

    async def _draw(self, process: asyncio.subprocess.Process, wish: Wish, made: float) -> None:
        """Tell of the picture at once, and again when its pixels are counted, if nothing newer is wished."""
        answer: Mapping[str, Any] | None = None
        if wish.number != self._sample:
            self._sample = None
            answer = await self._ask(process, {"do": "sample", "number": wish.number})
            self._sample, self._before = wish.number, _picture(answer)
        assert self._before is not None
        edits = [edit.plain for edit in wish.edits]
        if edits or answer is None:
            answer = await self._ask(process, {"do": "paint", "edits": edits, "label": False})
        picture, seconds = _picture(answer), time.monotonic() - made
        self._answered = wish
        self._listener.when_drawn(Drawn(wish, picture, self._before, None, seconds))
        await asyncio.sleep(0)  # a key that waits is looked at
        if edits and self._wish is wish:
            answer = await self._ask(process, {"do": "paint", "edits": edits, "label": True})
            self._listener.when_drawn(Drawn(wish, picture, self._before, _effect(answer), seconds))  # the same picture

    async def _write(self, process: asyncio.subprocess.Process, wish: Wish, path: str) -> None:
        self._save_as = None
        try:
            answer = await self._ask(process, {"do": "save", "path": path, "force": False})
            self._listener.when_saved(wish, str(answer.get("saved")), str(answer.get("edits")))
        except NDError as e:
            self._listener.when_not_saved(e)

    async def _ask(self, process: asyncio.subprocess.Process, command: Mapping[str, Any]) -> Mapping[str, Any]:
        """The answer to ``command``; NDError where it is an error, _EndedError where there is none."""
        assert process.stdin is not None
        try:
            process.stdin.write(json.dumps(command).encode() + b"\n")
            await process.stdin.drain()
        except (BrokenPipeError, ConnectionResetError) as e:
            raise _EndedError from e
        return await self._answer(process)

    async def _answer(self, process: asyncio.subprocess.Process) -> Mapping[str, Any]:
        assert process.stdout is not None
        try:
            line = await process.stdout.readline()
        except ValueError as e:  # a line without an end
            raise _EndedError from e
        if not line.endswith(b"\n"):
            raise _EndedError
        try:
            answer = json.loads(line)
        except (ValueError, RecursionError) as e:
            self._said.append(f"it does not speak as it should: {first_line(e)}")
            raise _EndedError from e
        if not isinstance(answer, dict):
            self._said.append("it does not speak as it should")
            raise _EndedError
        if "error" in answer:
            raise NDError(one_line(str(answer["error"])), one_line(str(answer.get("hint") or "")))
        return answer

    async def _listen(self, process: asyncio.subprocess.Process) -> None:
        """Keep the last lines of the standard error."""
        assert process.stderr is not None
        with contextlib.suppress(ValueError):
            while line := await process.stderr.readline():
                self._said.append(line.decode("utf-8", "replace"))
                del self._said[:-_LAST]

    def _last_words(self, process: asyncio.subprocess.Process) -> str:
        """Why the process ended, in one line."""
        lines = [one_line(line).strip() for line in self._said if line.strip()]
        said = next((line.removeprefix("nd: ") for line in reversed(lines) if line.startswith("nd: ")), "")
        code = process.returncode or 0
        ended = f"it was ended by signal {-code}" if code < 0 else f"its exit code is {code}"
        return said or f"{ended}{': ' if lines else ''}{''.join(lines[-1:])}"


def _ready(answer: Mapping[str, Any]) -> Ready:
    try:
        rows, columns = (int(n) for n in answer["map_size"])
        if not (0 < rows <= 4096 and 0 < columns <= 4096):
            raise ValueError("the layer's map has no size")
        return Ready(
            layer=str(answer["layer"]),
            concepts=tuple(map(str, answer["concepts"])),
            map_size=(rows, columns),
            samples=int(answer["samples"]),
            units=int(answer["units"]),
            notes=tuple(map(str, answer.get("notes", ()))),
        )
    except (KeyError, TypeError, ValueError) as e:
        raise _misunderstood(e) from e


def _picture(answer: Mapping[str, Any]) -> Image.Image:
    try:
        picture = Image.open(io.BytesIO(base64.b64decode(answer["picture"])), formats=("PNG",))
        return picture.convert("RGB")
    except (KeyError, TypeError, ValueError, OSError, SyntaxError, Image.DecompressionBombError) as e:
        raise _misunderstood(e) from e


def _effect(answer: Mapping[str, Any]) -> Effect:
    try:
        counts = ((c["concept"], int(c["before"]), int(c["after"])) for c in answer["concepts"])
        pixels = ("changed_outside", "pixels_outside", "changed_inside", "pixels_inside")
        return Effect(tuple(counts), **{name: int(answer[name]) for name in pixels})
    except (KeyError, TypeError, ValueError) as e:
        raise _misunderstood(e) from e


def _misunderstood(error: Exception) -> NDError:
    return NDError(f"the painting process answered what nobody understands: {first_line(error)}")
