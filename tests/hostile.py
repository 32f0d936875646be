"""Names full of what a terminal obeys and of what nobody sees, and what may reach a terminal in spite of them.

``name("LAYER")`` is such a name, ``seen(output)`` the tags of those that were shown in it. ``harmless`` judges plain
output, ``left_of`` a terminal's: what remains of it without the sequences that Rich and Textual write. ``workplace``
makes a folder in which everything is called so.
"""

from __future__ import annotations

import json
import re
import shlex
import unicodedata
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import h5py
import numpy as np
import store_factory
import torch
from broden_factory import Concept, Picture, write_broden, write_csv

from ndissect.store import group_writer, writer
from ndissect.store.effects import Classes, Effects
from ndissect.store.live import RunWriter, run_file

# Unicode's Default_Ignorable_Code_Point, where its categories do not tell; and the blank of Braille.
_UNSEEN = {
    *(0x034F, 0x115F, 0x1160, 0x17B4, 0x17B5, 0x2800, 0x3164, 0xFFA0),
    *range(0x180B, 0x1810),
    *range(0xFE00, 0xFE10),
    *range(0xE0100, 0xE01F0),
}
#: What each does: OSC 52 (clipboard) and OSC 0 (title) in both spellings, clearing, colour, C1, bidi, zero-width,
#: tags, a soft hyphen, markup of Rich and Textual, a formula of matplotlib's, another link, a bell, a backspace.
EVIL = (
    "\x1b]52;c;ZXZpbA==\x07\x1b]0;evil\x1b\\\x1b[2J\x1b[31m\x9b31m\x9d52;c;ZXZpbA==\x9c"
    "\u202e\u2066\u061c\u200f\u200b\u200d\u2060\ufeff\U000e0041\u00ad\ufe0f\ue000"
    "[red][/b][link=x]$^$_\\\x1b]8;;x\x07\x07\x08\x7f\r"
)
#: As file names can have it: bytes that are no UTF-8 and a line end, but no slash.
EVIL_FILE = f"{EVIL}\n\udc9b31m\udcff".replace("/", "")
#: As tables of data sets can have it: neither what parts names in them, nor another line end.
EVIL_CELL = re.sub(r"[/\\;()\r]", "", EVIL)
TAGS = (
    *("FOLDER", "STORE", "LAYER", "MODULE", "CONCEPT", "CATEGORY", "IMAGE", "SPLIT", "GROUP", "SPEC", "KEY", "VALUE"),
    "CLASS",
    *("COMMAND", "HOST", "PHASE", "REASON", "DATA", "FILE", "OPTION", "FACTOR"),
)


def name(tag: str) -> str:
    """A name that begins with ``tag``."""
    return f"{tag}{EVIL}"


def file_name(tag: str, ending: str = "") -> str:
    """Likewise, as a file can be called."""
    return f"{tag}{EVIL_FILE}{ending}"


def seen(text: str) -> set[str]:
    """The tags of ``name``s that were shown in ``text``."""
    return {tag for tag in TAGS if tag in text}


def harmless(text: str, layout: str = "") -> bool:
    """Whether all of ``text`` is drawn as itself; ``layout``: characters that may be in it besides."""
    return not strange(text, layout)


def strange(text: str, layout: str = "") -> list[str]:
    """The characters of ``text`` that are not."""
    odd = ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")
    return [c for c in text if c not in layout and (ord(c) in _UNSEEN or unicodedata.category(c) in odd)]


# Modes that Textual and Rich switch, by their numbers: the cursor, mouse, focus, paste, screens, synchronised painting.
_MODES = "7|25|1000|1003|1004|1006|1015|1016|1049|2004|2026|2048"
_SEQUENCES = re.compile(
    "|".join(
        (
            r"\x1b\[[0-9;:]*m",  # colours and attributes
            r"\x1b\[\d*[ABCDGJK]",  # the cursor by so many, to a column; erasing
            r"\x1b\[(\d+;\d+)?H",  # the cursor to a place
            rf"\x1b\[\?({_MODES})[hl]",
            rf"\x1b\[\?({_MODES})\$p",  # whether a mode is known
            r"\x1b\[[<>=]\d*u",  # the kitty keyboard protocol
            r"\x1b\[c",
            r"\x1b\]22;[a-z-]*\x07",  # the pointer's shape
        )
    )
)

#: OSC 52 as nd writes it itself, for who copies something: base64, which carries no sequence.
COPIED = re.compile(r"\x1b\]52;c;([A-Za-z0-9+/]*=*)\x07")


def left_of(raw: str) -> str:
    """What remains of a terminal's output without the sequences of Rich and Textual, none of which carries text."""
    return _SEQUENCES.sub("", raw)


# A workplace where everything is called so

STORE, OTHER = file_name("STORE", ".nd.h5"), file_name("STORE", "2.nd.h5")
SPEC, WEIGHTS, DATA = file_name("SPEC", ".py"), file_name("KEY", ".pt"), file_name("DATA")
SERIES = file_name("FACTOR")
RUN, TABLE = file_name("STORE", "3.nd.h5"), file_name("FILE", ".csv")
#: The layer of the store as its reader calls it, and that of the network.
LAYER = name("LAYER")

NETWORK = """
import torch
from torch import nn

LAYER = {layer!r}


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.add_module(LAYER, nn.Conv2d(3, 4, 3, stride=4, padding=1))

    def forward(self, x):
        return getattr(self, LAYER)(x).mean((2, 3))


def network():
    torch.manual_seed(0)
    print({value!r})
    return Net(), lambda x: x.float()


def failing():
    raise ValueError({value!r})
"""


def write_store(path: Path, categories: bool = True) -> Path:
    """A store whose every string is hostile, which nd's own writer would have cleaned."""
    made = store_factory.dissection(evidence=True, effects=True, groups=("all",))
    assert made.images is not None
    assert made.classes is not None
    hostile = replace(
        made,
        concepts=replace(
            made.concepts,
            name=tuple(f"{name('CONCEPT')}{i}" for i in range(len(made.concepts))),
            categories=tuple(f"{name('CATEGORY')}{i}" for i in range(6)) if categories else made.concepts.categories,
        ),
        layers=tuple(
            replace(layer, name=f"{LAYER}{i or ''}", module=name("MODULE"), effects=_effects(layer.effects))
            for i, layer in enumerate(made.layers)
        ),
        classes=Classes(tuple(f"{name('CLASS')}{i}" for i in range(len(made.classes.names))), name("VALUE")),
        images=replace(
            made.images,
            name=tuple(f"{name('IMAGE')}{i}" for i in range(len(made.images.name))),
            split=tuple(name("SPLIT") for _ in made.images.split),
        ),
        groups=(name("GROUP"),),
        provenance=_provenance(),
    )

    def encoded(values: Any) -> Any:
        raw = [value.encode("utf-8", "surrogatepass") for value in values]
        return np.array(raw, dtype=h5py.string_dtype("utf-8", max(map(len, raw), default=1)))

    with mock.patch.object(group_writer, "_encoded", encoded):
        writer.write_store(path, hostile)
    return path


def _effects(given: Effects | None) -> Effects:
    assert given is not None
    value = name("VALUE")
    return replace(given, splits=(value, value), origin={"by": value, "truth": value, "how": value, value: value})


def _provenance() -> Mapping[str, Any]:
    value = name("VALUE")
    about = {"spec": name("SPEC"), "name": value, "digest": value, "weights": value, "code": value}
    data = {"name": name("DATA"), "path": name("DATA"), "digest": value, "images": 12, "used": value}
    run = {"device": value, "arithmetic": value, value: value}
    return {
        "command": name("COMMAND"), "network": about, "data": data, "run": run, "versions": {value: value},
        "started": value, "seconds": {value: 1.0}, value: value, "preprocessing": {value: value},
    }  # fmt: skip


def write_run(target: Path) -> None:
    """The file that a killed run to ``target`` has left."""
    with RunWriter(target, shlex.join(["nd", "dissect", name("COMMAND")]), [(LAYER, 4)]):
        record = json.loads(run_file(target).read_bytes())
    changes = {"host": name("HOST"), "phase": name("PHASE"), "machine": name("VALUE"), "target": target.name}
    changes |= {name: record[name] - 3600 for name in ("started", "updated")}  # of another machine, and silent since
    run_file(target).write_text(json.dumps(record | changes), encoding="utf-8")


def write_data(folder: Path) -> None:
    """A data set with hostile images, concepts and a category; one image is no image."""
    rng = np.random.default_rng(1)
    evil = f"CATEGORY{EVIL_CELL}"
    pictures = [
        Picture(
            maps={"object": np.kron(rng.choice([0, 3, 4], (4, 4)), np.ones((4, 4))).astype(np.uint16)},
            labels={evil: [11] if i % 3 == 0 else []},
            name=f"IMAGE{EVIL_CELL}{i}.png",
        )
        for i in range(8)
    ]
    concepts = [
        Concept(3, f"CONCEPT{EVIL_CELL}"),
        Concept(4, f"CONCEPT{EVIL_CELL}2"),
        Concept(11, f"CONCEPT{EVIL_CELL}3", evil),
    ]
    write_broden(folder, pictures, concepts, categories=("object", evil))
    (folder / "images" / pictures[-1].name).write_bytes(b"no image")


def workplace(folder: Path) -> Path:
    """A folder of hostile names within ``folder`` with two stores, a killed run, a network, weights, data, a table."""
    place = folder / file_name("FOLDER")
    place.mkdir()
    write_store(place / STORE)
    write_store(place / OTHER)
    write_run(place / RUN)
    (place / SPEC).write_text(NETWORK.format(layer=LAYER, value=name("VALUE")), encoding="utf-8")
    torch.save({f"{LAYER}.{name('KEY')}": torch.zeros(3), "other": torch.zeros(1)}, place / "keys.pt")
    (place / "keys.pt").rename(place / WEIGHTS)
    write_data(place / DATA)
    columns = [f"CATEGORY{EVIL_CELL}-{part}" for part in ("label", "truth", "activation", "intersect", "iou")]
    cells = [1, f"CONCEPT{EVIL_CELL}", f"CATEGORY{EVIL_CELL}", 0.5, f"CONCEPT{EVIL_CELL}", 4, 4, 4, 1.0]
    header = ["unit", "category", "label", "score", *columns]
    (place / TABLE).write_text(",".join(header) + "\n" + ",".join(map(str, cells)) + "\n", encoding="utf-8")
    (place / SERIES).mkdir()
    (place / SERIES / "net.py").write_bytes((place / SPEC).read_bytes())
    cells = [["net.py:network", f"FACTOR{EVIL_CELL}{i}", f"FACTOR{EVIL_CELL}"] for i in range(2)]
    write_csv(place / SERIES / "series.csv", ["network", "name", f"FACTOR{EVIL_CELL}"], cells)
    return place
