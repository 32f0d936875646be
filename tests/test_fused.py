"""The fused kernel: equal to the oracle in Triton's interpreter, compiled without fused arithmetic, used on a GPU."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from test_tally import activations, assert_equal, dense, place, random_labels, tally

from ndissect.engine.measures import fused

INTERPRETED = Path(__file__).with_name("interpreted_fused.py")


def test_the_kernel_counts_as_the_oracle_does_in_triton_s_interpreter():
    """In a process of its own: Triton must know from its start that it is to interpret."""
    pytest.importorskip("triton")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-n0", str(INTERPRETED)],
        env={**os.environ, "TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
        cwd=INTERPRETED.parent.parent,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"\b[1-9]\d+ passed|\.{20}", done.stdout), done.stdout
    assert "skipped" not in done.stdout


# --- compiled -------------------------------------------------------------------------------------------------------

FORMS = [
    pytest.param((16, 16, 2, 8), "*i64", id="7 to 112, four labels"),
    pytest.param((2, 2, 2, 4), "*i32", id="56 to 112, two labels"),
    pytest.param((9, 9, 2, 2), "*i16", id="13 to 113, one label"),
    pytest.param((56, 56, 4, 8), "*i64", id="1 to 112, labels of 32 bits"),
]


def assembly(form, words, fusion, architecture=80):
    """The kernel's PTX for a GPU that need not be there."""
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource, compile

    from ndissect.engine.measures import fused_kernel

    constants = fused_kernel.constants(*form)
    floats = dict.fromkeys(("corners", "limit", "wy", "wx"), "*fp32")
    counts = dict.fromkeys(("pixel_of", "group", "area", "hits"), "*i64")
    given = {"index": "*i32", "words": words} | floats | counts | dict.fromkeys(constants, "constexpr")
    signature = {name: given.get(name, "i32") for name in fused_kernel.count_cells.arg_names}
    options = fused_kernel.OPTIONS | ({"enable_fp_fusion": True} if fusion else {})
    source = ASTSource(fused_kernel.count_cells, signature, constants)
    return compile(source, target=GPUTarget("cuda", architecture, 32), options=options).asm["ptx"]


@pytest.mark.parametrize(("form", "words"), FORMS)
def test_compiled_it_multiplies_and_adds_in_two_roundings(tmp_path, monkeypatch, form, words):
    """mul.rn and add.rn may not be joined by any later stage; without the suffix they may, and fma is joined."""
    pytest.importorskip("triton")
    if os.environ.get("TRITON_INTERPRET") == "1":
        pytest.skip("Triton is interpreting")
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    ptx = assembly(form, words, fusion=False)
    multiplied = re.findall(r"\b(?:mul|add|sub)\.[a-z.]*f32", ptx)
    assert {"mul.rn.f32", "add.rn.f32"} <= set(multiplied) <= {"mul.rn.f32", "add.rn.f32", "sub.rn.f32"}
    assert not re.search(r"\b(fma|mad)\.[a-z.]*f\d\d", ptx)
    assert ".ftz" not in ptx  # which would make the smallest numbers zero
    # So would the kernel be if nothing was asked for.
    assert re.search(r"\bfma\.rn\.f32", assembly(form, words, fusion=True))


# --- in use ---------------------------------------------------------------------------------------------------------


def test_on_a_cpu_the_plain_tally_counts(monkeypatch):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    assert not fused.wanted(torch.device("cpu"))


def test_nd_fused_0_turns_it_off(monkeypatch):
    monkeypatch.setattr(fused._State, "why_not", None)
    monkeypatch.setenv("ND_FUSED", "0")
    assert not fused.wanted(torch.device("cuda"))
    monkeypatch.delenv("ND_FUSED")
    assert fused.wanted(torch.device("cuda"))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize(("units", "size"), [(512, 7), (256, 14), (128, 28), (64, 56)])
def test_on_a_gpu_it_counts_a_layer_of_resnet_18_as_the_oracle_does(units, size):
    pytest.importorskip("triton")
    rng = np.random.default_rng(units)
    labels = random_labels(rng, 3, (112, 112), concepts=12, categories=4, most_maps=4)
    maps = activations(rng, (3, units, size, size), "relu")
    limits = np.quantile(maps.numpy(), 0.995, axis=(0, 2, 3))
    placement = place("half-pixel", (size, size), (112, 112))
    expected = dense(maps, limits, placement, labels)
    assert_equal(tally(maps, limits, placement, labels, device="cuda", cuts=[1]), expected)
    assert fused.why_not() is None
