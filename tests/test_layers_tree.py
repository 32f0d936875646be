"""``nd layers``: a tree on a terminal, with repeated blocks together; tab-separated lines and JSON elsewhere."""

from __future__ import annotations

from pathlib import Path

import cli
import pytest

from ndissect.tui.cli.layer_tree import ListedLayer, Row, draw, fitting_depth, folded, grow, height, human, legend, rows


def listed(name: str, module: str = "Conv2d", *, parameters: int = 100, **changes: object) -> ListedLayer:
    known = {"units": 8, "map_size": (14, 14), "reason": "", "calls": 1, "note": "", "taken": False}
    return ListedLayer(name=name, module=module, parameters=parameters, **{**known, **changes})  # type: ignore[arg-type]


def block(name: str, **changes: object) -> list[ListedLayer]:
    inner = [listed(f"{name}.conv"), listed(f"{name}.relu", "ReLU", parameters=0, calls=2)]
    return [listed(name, "Block", **changes), *inner]


def names(table: list[Row]) -> list[str]:
    return [f"{' ' * row.depth}{row.label}" for row in table]


NETWORK = [
    listed("conv1"),
    listed("layer1", "Sequential"),
    *block("layer1.0", parameters=300),
    *block("layer1.1"),
    *block("layer1.2"),
    *block("layer1.3", taken=True),
    listed("fc", "Linear", parameters=513_000, units=1000, map_size=None, reason="not a map: shape (N, 1000)"),
]


def test_a_name_stands_in_what_holds_it_in_the_network_s_order() -> None:
    tree = grow([*NETWORK, listed("lost.child"), listed("lost.child.x")])
    assert [branch.label for branch in tree] == ["conv1", "layer1", "fc", "lost.child"]
    assert [branch.label for branch in tree[1].inside] == ["0", "1", "2", "3"]
    assert [branch.label for branch in tree[1].inside[2].inside] == ["conv", "relu"]
    assert [branch.label for branch in tree[3].inside] == ["x"]
    assert names(rows(tree, None))[:5] == ["conv1", "layer1", " 0", "  conv", "  relu"]
    assert height(tree) == 3


def test_numbered_blocks_in_a_row_that_are_alike_all_through_are_one() -> None:
    table = rows(folded(grow(NETWORK)), None)
    # The first has other parameters, and the last is taken without -l.
    assert [row.label for row in table if row.depth == 1] == ["0", "1-2", "3"]
    assert [row.layer.module for row in table if row.label == "1-2"] == ["2 x Block"]
    named = [x for i in (9, 10, 12) for x in block(f"stage.layer_{i}")]
    assert [b.label for b in folded(grow([listed("stage"), *named]))[0].inside] == ["layer_9-10", "layer_12"]
    other = [*block("a.0"), *block("a.1")[:-1], listed("a.1.relu", "GELU", parameters=0, calls=2)]
    assert [b.label for b in folded(grow([listed("a"), *other]))[0].inside] == ["0", "1"]
    plain = [listed("features.0", "ReLU"), listed("features.1", "ReLU")]
    assert [b.label for b in folded(grow(plain))] == ["features.0", "features.1"], "single layers are listed one by one"


def test_the_tree_is_as_deep_as_there_are_lines_for() -> None:
    tree = folded(grow(NETWORK))
    assert [len(rows(tree, depth)) for depth in (1, 2, 3)] == [3, 6, 12]
    assert [fitting_depth(tree, lines) for lines in (1, 3, 6, 11, 12, 99)] == [1, 1, 2, 2, 3, 3]
    closed = {row.label: row.more for row in rows(tree, 2)}
    assert closed == {"conv1": 0, "layer1": 0, "0": 2, "1-2": 2, "3": 2, "fc": 0}


@pytest.mark.parametrize(
    ("count", "text"),
    [
        *((None, ""), (0, ""), (7, "7"), (999, "999"), (1000, "1k"), (9408, "9.41k"), (999_499, "999k")),
        *((999_999, "1M"), (11_689_512, "11.7M"), (138_357_544, "138M"), (3 * 10**12, "3T")),
    ],
)
def test_numbers_are_written_in_three_digits(count: int | None, text: str) -> None:
    assert human(count) == text


def test_a_line_tells_what_can_be_dissected_and_why_another_cannot() -> None:
    lines = draw(rows(folded(grow(NETWORK)), None), 80)
    said = {line.text[2:].split()[0]: line for line in lines}
    assert said["layer"].text.split() == ["layer", "module", "params", "units", "map"]
    assert said["conv1"].text.split() == ["conv1", "Conv2d", "100", "8", "14x14"]
    assert said["relu"].text.endswith("8  14x14  called 2 times")
    assert said["3"].text.startswith("* ")
    assert said["fc"].text.endswith("513k  no map: shape (N, 1000)")
    assert [line.faint for line in lines] == [line.text.strip().startswith("fc") for line in lines]


def test_blocks_whose_reasons_name_their_own_modules_are_alike() -> None:
    whole = [
        [*block(name), listed(f"{name}.attention", reason=f"not a map: a tuple of 2, of which {name}.attention.0 is")]
        for name in ("blocks.0", "blocks.1")
    ]
    (blocks,) = folded(grow([listed("blocks"), *whole[0], *whole[1]]))
    assert [b.label for b in blocks.inside] == ["0-1"]
    assert blocks.inside[0].inside[-1].layer.told == "no map: a tuple of 2, of which attention.0 is"


def test_layers_that_are_taken_are_told_where_no_line_shows_them() -> None:
    tree = folded(grow(NETWORK))
    assert legend(rows(tree, 2), NETWORK) == ["* taken without --layers"]
    assert legend(rows(tree, 1), NETWORK) == ["taken without --layers: layer1.3"]
    assert legend(rows(tree, 1), NETWORK[:1]) == []


@pytest.mark.parametrize("width", [60, 80, 200])
def test_no_line_is_wider_than_the_screen(width: int) -> None:
    long = [
        listed("stem", "Conv2dNormActivationWithAVeryLongName"),
        listed("head", "M", reason="not a map: returns a Something" * 3),
    ]
    lines = draw(rows(grow([*NETWORK, *long]), None), width)
    assert max(len(line.text) for line in lines) <= width


# The command


NETWORK_FILE = """
import torch
from torch import nn


class Block(nn.Module):
    def __init__(self, width=4):
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, padding=1)
        self.relu = nn.ReLU()

    def forward(self, x):
        return self.relu(self.conv(self.relu(x)))


def network():
    stages = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), Block(), Block(), Block())
    return nn.Sequential(stages, nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, 5)), lambda x: x.float()
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("layers")
    (folder / "net.py").write_text(NETWORK_FILE)
    return folder


def test_on_a_terminal_it_is_a_tree(folder: Path) -> None:
    seen = cli.on_terminal("layers", "net.py:network", "--input-size", "32", folder=folder)
    assert seen.code == 0, seen.text
    lines = [line.rstrip() for line in seen.lines]
    assert "net.py:network  641 parameters" in seen.text
    assert any(line.split() == ["1-3", "3", "x", "Block", "148", "4", "32x32"] for line in lines), seen.text
    assert any(line.endswith("called 2 times") for line in lines), seen.text
    assert any(line.split()[:3] == ["3", "Linear", "85"] for line in lines), seen.text
    assert "* taken without --layers" in seen.text
    assert max(map(len, lines)) <= 80


def test_elsewhere_it_is_a_line_a_layer_with_all_that_is_known(folder: Path) -> None:
    done = cli.nd("layers", "net.py:network", "--input-size", "32", "-l", "0.[12]", "--all", folder=folder)
    header, *lines = [line.split("\t") for line in done.stdout.splitlines()]
    assert header == ["layer", "module", "units", "map", "parameters", "note"]
    assert [line[0] for line in lines] == ["0.1", "0.1.conv", "0.1.relu", "0.2", "0.2.conv", "0.2.relu"]
    assert lines[0] == ["0.1", "Block", "4", "32x32", "148", ""]
    assert lines[2][5] == "called 2 times, the last call counts"
    found = cli.json_of("layers", "net.py:network", "--input-size", "32", "--all", folder=folder)["layers"]
    by_name = {x["layer"]: x for x in found}
    assert set(by_name["0"]) == {
        *("layer", "module", "units", "map", "why_not", "parameters", "calls", "note", "default")
    }
    assert (by_name["0.1.relu"]["calls"], by_name["0.1.relu"]["parameters"]) == (2, 0)
    assert by_name["3"]["map"] == [1, 1]
    assert [x["layer"] for x in found if x["default"]] == ["0"]
