"""The README's section on one's own network, done from start to finish as it is written."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

from broden_factory import write_broden
from cli import CONCEPTS, ND, SIZE, pictures

from ndissect.engine.networks.spec import FORMS

README = (Path(__file__).resolve().parents[1] / "README.md").read_text(encoding="utf-8")
SECTION = README.partition("\n## Your own network\n")[2].partition("\n## ")[0]
BLOCKS = re.findall(r"```(python|console)\n(.*?)```", SECTION, re.DOTALL)


def test_the_section_does_what_it_says(tmp_path: Path) -> None:
    write_broden(tmp_path / "mine", pictures(), CONCEPTS, grid=(SIZE, SIZE))
    (_, code), (_, session), *_ = BLOCKS
    file = tmp_path / code.partition("\n")[0].removeprefix("# ")
    file.parent.mkdir()
    file.write_text(code)
    programs = {"python": sys.executable, "nd": str(ND)}
    outputs = {}
    for line in session.splitlines():
        command = re.split(r"\s{2,}", line.removeprefix("$ "))[0]
        program, *words = shlex.split(command)
        done = subprocess.run(
            [programs[program], *words], cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False
        )
        assert done.returncode == 0, f"{command}: {done.stderr}"
        outputs[command] = done.stdout
    listed, *_, inspected = list(outputs.values())[1:]
    assert "features.2\tConv2d\t32\t16x16" in listed
    assert len(inspected.splitlines()) == 33, "a line a unit below their header"
    assert (tmp_path / "net.nd.h5").is_file()


def test_every_kind_of_network_is_in_the_section() -> None:
    assert all(f"`{scheme}:" in SECTION for scheme in FORMS if scheme not in ("file", "module", "demo"))
    assert "path/file.py:factory" in SECTION and "module:factory" in SECTION
