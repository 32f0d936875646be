"""A real Chromium without a window and without a network, spoken to through a pipe: no driver, no port.

with browser(tmp_path) as page:
    page.open(path)
    page.evaluate("document.title")
    page.press("j")
    page.asked, page.complaints
"""

from __future__ import annotations

import base64
import contextlib
import itertools
import json
import os
import select
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = (
    "--headless",
    "--no-sandbox",  # which a container's root has not
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--no-first-run",
    "--host-resolver-rules=MAP * ~NOTFOUND",
    "--remote-debugging-pipe",
)
_PATIENCE = 60.0
_KEYS = {"Enter": (13, "\r"), "Escape": (27, ""), "ArrowDown": (40, "")}


def chromium() -> str | None:
    """The executable of a Chromium on this machine, None where there is none."""
    return next((found for name in NAMES if (found := shutil.which(name))), None)


class Page:
    """One page of a running browser: what it asked for, and what it complained about, since it was started."""

    def __init__(self, process: subprocess.Popen[bytes], to: int, by: int) -> None:
        self._process, self._to, self._by = process, to, by
        self._number = itertools.count(1)
        self._read = b""
        self._session: str | None = None
        self._events: list[str] = []
        #: Addresses that were asked for, and errors and warnings: of scripts, and what the browser logged.
        self.asked: list[str] = []
        self.complaints: list[str] = []
        target = self._call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self._call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self._call(f"{domain}.enable")
        nothing = {"latency": 0, "downloadThroughput": 0, "uploadThroughput": 0}
        self._call("Network.emulateNetworkConditions", offline=True, **nothing)

    def open(self, path: Path) -> None:
        """Load a file, to the end of its scripts."""
        self._events.clear()
        self._call("Page.navigate", url=path.resolve().as_uri())
        while "Page.loadEventFired" not in self._events:
            self._take()

    def evaluate(self, script: str) -> Any:
        """What a JavaScript expression comes to; a promise is waited for."""
        found = self._call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def wait_for(self, script: str) -> None:
        """Ask again and again until the expression is true."""
        deadline = time.monotonic() + _PATIENCE
        while not self.evaluate(script):
            assert time.monotonic() < deadline, script
            time.sleep(0.02)

    def press(self, *keys: str) -> None:
        """Keys as from a keyboard: letters, or names such as Enter."""
        for key in keys:
            code, text = _KEYS.get(key, (ord(key.upper()[0]), key))
            about = {"key": key, "windowsVirtualKeyCode": code}
            self._call("Input.dispatchKeyEvent", type="keyDown", text=text, **about)
            self._call("Input.dispatchKeyEvent", type="keyUp", **about)

    def click(self, selector: str) -> None:
        """A click of the mouse in the middle of the first element that a CSS selector finds."""
        place = f"document.querySelector({json.dumps(selector)})"
        self.evaluate(f"{place}.scrollIntoView({{block: 'center'}})")
        middle = "(({x, y, width, height}) => [x + width / 2, y + height / 2])"
        x, y = self.evaluate(f"{middle}({place}.getBoundingClientRect())")
        for kind in ("mousePressed", "mouseReleased"):
            self._call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def show(self, width: int, height: int, dark: bool = False) -> None:
        """Another size of the window in pixels, and the reader's taste of colours."""
        self._call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self._call("Emulation.setEmulatedMedia", features=[scheme])

    def picture(self) -> bytes:
        """What is to be seen, as a PNG."""
        return base64.b64decode(self._call("Page.captureScreenshot", format="png")["data"])

    def print(self) -> bytes:
        """The page as a PDF."""
        return base64.b64decode(self._call("Page.printToPDF", printBackground=False)["data"])

    def _call(self, method: str, **parameters: Any) -> Any:
        number = next(self._number)
        message = {"id": number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._take()
            if answer.get("id") == number:
                assert "error" not in answer, (method, answer["error"])
                return answer["result"]

    def _take(self) -> dict[str, Any]:
        """The browser's next message."""
        while b"\0" not in self._read:
            assert select.select([self._by], [], [], _PATIENCE)[0], "the browser does not answer"
            piece = os.read(self._by, 1 << 16)
            assert piece, "the browser has gone"
            self._read += piece
        first, _, self._read = self._read.partition(b"\0")
        message: dict[str, Any] = json.loads(first)
        event, about = message.get("method", ""), message.get("params", {})
        self._events.append(event)
        if event == "Network.requestWillBeSent":
            self.asked.append(about["request"]["url"])
        elif event == "Runtime.exceptionThrown":
            self.complaints.append(str(about["exceptionDetails"]))
        elif event == "Runtime.consoleAPICalled" and about["type"] in ("error", "warning", "assert"):
            self.complaints.append(str(about["args"]))
        elif event == "Log.entryAdded":
            self.complaints.append(str(about["entry"]))
        return message


@contextlib.contextmanager
def browser(folder: Path) -> Iterator[Page]:
    """A page of a browser that keeps its profile in ``folder``, and that ends with the block."""
    found = chromium()
    assert found is not None
    commands_out, commands_in = os.pipe()
    answers_out, answers_in = os.pipe()
    # A shell puts the pipes where the browser looks for them: it reads from 3 and writes to 4.
    start = f'exec "$0" "$@" 3<&{commands_out} 4>&{answers_in}'
    process = subprocess.Popen(
        ["bash", "-c", start, found, *FLAGS, f"--user-data-dir={folder}"],
        pass_fds=(commands_out, answers_in),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    os.close(commands_out)
    os.close(answers_in)
    try:
        yield Page(process, commands_in, answers_out)
    finally:
        os.close(commands_in)  # which it takes as its end
        os.close(answers_out)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
