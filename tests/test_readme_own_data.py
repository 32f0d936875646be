"""The README's section on one's own data does what it says, from its first command to its last."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import cli
import numpy as np
from mask_factory import write_folder

README = (Path(__file__).resolve().parents[1] / "README.md").read_text(encoding="utf-8")
SECTION = README.split("## Your own data\n")[1].split("\n## ")[0]


def test_the_commands_run_as_they_are_written(tmp_path: Path) -> None:
    names, commands = re.findall(r"```\w*\n(.*?)```", SECTION, re.DOTALL)[:2]
    rng = np.random.default_rng(0)
    maps = {
        f"{split}/{n}": {"": rng.integers(0, 4, (24, 24)).astype(np.uint8)} for split in ("train", "val") for n in "abc"
    }
    write_folder(tmp_path / "pets", maps, None, size=(48, 48))
    (tmp_path / "pets/names.csv").write_text(names, encoding="utf-8")
    lines = [shlex.split(re.split(r"\s{2,}", line)[0])[2:] for line in commands.splitlines()]
    printed = {}
    for words in lines:
        done = cli.nd(*words, folder=tmp_path)
        assert done.returncode == 0, (words, done.stderr)
        printed[" ".join(words[:2])] = done.stdout
    assert list(printed) == ["data init", "data check", "data info", "dissect demo", "inspect layer4"]
    assert printed["data init"] == "mine\n"
    assert re.search(r"^object\t2\t", printed["data info"], re.MULTILINE)
    assert (tmp_path / "mine.nd.h5").is_file()
    assert "layer4" in printed["inspect layer4"] or "IoU" in printed["inspect layer4"]
