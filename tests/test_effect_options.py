"""The flags that why, ablate and attack share, and the request that they make."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Annotated, Any

import pytest
import typer
from store_factory import dissection
from typer.testing import CliRunner

from ndissect.engine.experiments.effect_request import EffectRequest
from ndissect.engine.run.options import Options
from ndissect.store.errors import WrongUse
from ndissect.store.writer import write_store
from ndissect.tui.cli.effect_options import FIELDS, takes_effect_options
from ndissect.tui.cli.options import JsonOption

MADE: list[tuple[EffectRequest, Mapping[str, Any]]] = []


@takes_effect_options(first="layer")
def command(
    request: EffectRequest, layer: Annotated[str, typer.Argument(metavar="LAYER")], json: JsonOption = False
) -> None:
    """Say something."""
    MADE.append((replace(request, layer=layer), {"json": json}))


APP = typer.Typer()
APP.command()(command)


def made(*words: str) -> tuple[EffectRequest, Mapping[str, Any]]:
    result = CliRunner().invoke(APP, words, standalone_mode=False)
    if result.exception:
        raise result.exception
    return MADE.pop()


@pytest.fixture(autouse=True)
def in_its_own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ND_STORE", raising=False)


def test_flags_make_a_request() -> None:
    request, own = made(
        *("layer4", "--network", "demo", "--images", "photos", "--size", "32", "--classes", "names.txt", "--json"),
        *("-d", "data", "--skip-bad", "-b", "8"),
    )
    options = Options(size="32", classes=Path("names.txt"), data="data", skip_bad=True, batch_size=8)
    assert request == EffectRequest(None, "demo", options, "layer4", "photos")
    assert own == {"json": True}


def test_every_field_that_is_taken_is_one_of_options() -> None:
    assert set(FIELDS.split()) <= {field.name for field in fields(Options)} - {"network", "layers"}


def test_the_store_is_found_as_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(WrongUse, match=r"no .* store in this folder"):
        made("layer4")
    for n, (name, spec) in enumerate((("a", "demo"), ("b", "net.py:net"))):
        write_store(Path(f"{name}.nd.h5"), replace(dissection(), provenance={"network": {"spec": spec}}))
        os.utime(f"{name}.nd.h5", (n, n))
    assert made("layer4")[0].store == Path("b.nd.h5")
    assert made("layer4", "-s", "a.nd.h5")[0].store == Path("a.nd.h5")
    monkeypatch.setenv("ND_STORE", "a.nd.h5")
    assert made("layer4", "--network", "net.py:net")[0].store == Path("a.nd.h5")


def test_a_named_network_takes_a_store_of_its_own_or_none() -> None:
    assert made("layer4", "--network", "demo")[0].store is None
    for n, (name, spec) in enumerate((("a", "demo"), ("b", "net.py:net"))):
        write_store(Path(f"{name}.nd.h5"), replace(dissection(), provenance={"network": {"spec": spec}}))
        os.utime(f"{name}.nd.h5", (n, n))
    Path("c.nd.h5").write_bytes(b"none")
    assert made("layer4", "--network", "demo")[0].store == Path("a.nd.h5")
    assert made("layer4", "--network", "torchvision:resnet18")[0].store is None
    with pytest.raises(WrongUse, match="no store at gone"):
        made("layer4", "--network", "demo", "-s", "gone.nd.h5")
