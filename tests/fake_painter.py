"""Speaks as the painting process does, without a network: a concept is a colour, and an edit fills its cells with it.

python fake_painter.py MAP PIXELS: a square map of MAP cells on pictures of PIXELS. What it was asked lies in
``asked`` of the current folder. The file ``slow`` there makes it wait until it is gone; the concept "crash" ends it,
"nothing" is refused.
"""

from __future__ import annotations

import base64
import io
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from PIL import Image

COLORS = {"tree": (0, 160, 0), "sky": (90, 160, 255), "door": (150, 80, 0), "nothing": (0, 0, 0), "crash": (0, 0, 0)}
SAMPLES = 30


def before(number: int, size: int) -> Image.Image:
    picture = Image.new("RGB", (size, size), (20 + 7 * number, 60, 200 - 6 * number))
    picture.paste((240, 240, 240), (size // 2, size // 2, size, size))
    return picture


def painted(number: int, size: int, cells: int, edits: list[dict[str, Any]]) -> Image.Image:
    picture = before(number, size)
    side = size // cells
    for edit in edits:
        for row, column in edit["cells"]:
            color = COLORS[edit["concept"]] if edit["action"] == "add" else (0, 0, 0)
            picture.paste(color, (column * side, row * side, (column + 1) * side, (row + 1) * side))
    return picture


def png(picture: Image.Image) -> str:
    file = io.BytesIO()
    picture.save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


def answer(command: dict[str, Any], state: dict[str, Any], cells: int, size: int) -> dict[str, Any]:
    if command["do"] == "sample":
        if command["number"] >= SAMPLES:
            return {"error": f"there is no sample {command['number']}", "hint": f"samples are 0 to {SAMPLES - 1}"}
        state.update(number=command["number"], edits=[])
        return {"sample": state["number"], "picture": png(before(state["number"], size))}
    if command["do"] == "save":
        path = Path(command["path"])
        painted(state["number"], size, cells, state["edits"]).save(path)
        said = {"sample": state["number"], "layer": "layer4", "units": 20, "edits": state["edits"]}
        path.with_suffix(".json").write_text(json.dumps(said))
        return {"saved": str(path), "edits": str(path.with_suffix(".json"))}
    edits = command["edits"]
    if any(edit["concept"] == "crash" for edit in edits):
        print("nd: the machine is out of memory", file=sys.stderr)
        sys.exit(1)
    if any(edit["concept"] == "nothing" for edit in edits):
        return {"error": "no unit draws nothing", "hint": "choose another concept"}
    state["edits"] = edits
    inside = len({tuple(cell) for edit in edits for cell in edit["cells"]}) * (size // cells) ** 2
    said = {"changed_inside": inside, "pixels_inside": inside, "changed_outside": 0, "pixels_outside": size**2 - inside}
    names = dict.fromkeys(edit["concept"] for edit in edits) if command["label"] else ()
    concepts = [{"concept": name, "before": 7, "after": 7 + inside} for name in names]
    return {"picture": png(painted(state["number"], size, cells, edits)), **said, "concepts": concepts}


def main() -> None:
    cells, size = int(sys.argv[1]), int(sys.argv[2])
    ready = {"ready": True, "store": "x.nd.h5", "layer": "layer4", "concepts": [*COLORS], "map_size": [cells, cells]}
    print(json.dumps({**ready, "picture_size": [size, size], "samples": SAMPLES, "units": 20, "notes": []}), flush=True)
    state: dict[str, Any] = {}
    for line in sys.stdin:
        with Path("asked").open("a") as file:
            file.write(line)
        while os.path.exists("slow"):  # noqa: PTH110
            time.sleep(0.01)
        command = json.loads(line)
        if command["do"] == "quit":
            break
        print(json.dumps(answer(command, state, cells, size)), flush=True)


if __name__ == "__main__":
    main()
