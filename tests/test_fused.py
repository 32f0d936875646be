"""The fused kernels: equal to the oracle in Triton's interpreter, compiled without fused arithmetic, used on a GPU."""

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

# Cells of R x S pixels, bytes of a label and of a word of labels.
FORMS = [
    pytest.param((16, 16, 2, 8), id="7 to 112, four labels"),
    pytest.param((8, 8, 2, 8), id="14 to 112, four labels"),
    pytest.param((4, 4, 2, 8), id="28 to 112, four labels"),
    pytest.param((2, 2, 2, 4), id="56 to 112, two labels"),
    pytest.param((9, 9, 2, 2), id="13 to 113, one label"),
    pytest.param((1, 1, 2, 4), id="shrunk"),
    pytest.param((56, 56, 4, 8), id="1 to 112, labels of 32 bits"),
]
# Samples of a map along one side, and their type.
MAPS = [(7, "fp32"), (14, "bf16"), (56, "fp32")]


def compiled(kernel, constants, given, fusion=False, architecture=80):
    """The kernel, with pointers to ``given`` types, for a GPU that need not be there."""
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource, compile

    from ndissect.engine.measures import fused_kernel

    floats = dict.fromkeys(("maps", "corners", "limit", "wy", "wx"), "*fp32")
    counts = dict.fromkeys(("pixel_of", "row", "slot", "row_of", "slot_of", "area", "hits", "until"), "*i64")
    types = (
        dict.fromkeys(("index", "in_tile"), "*i32") | floats | counts | given | dict.fromkeys(constants, "constexpr")
    )
    signature = {name: types.get(name, "i32") for name in kernel.arg_names}
    options = fused_kernel.OPTIONS | ({"enable_fp_fusion": True} if fusion else {})
    return compile(ASTSource(kernel, signature, constants), target=GPUTarget("cuda", architecture, 32), options=options)


def counting_kernels(form):
    """Of the kernels that count, functions that compile them for cells of this form."""
    from ndissect.engine.measures import fused_kernel, map_kernel

    R, S, label_bytes, word_bytes = form
    words = {"words": f"*i{8 * word_bytes}"}
    cells = fused_kernel.constants(*form)
    maps = map_kernel.constants(R, S, 64) | fused_kernel.label_constants(label_bytes, word_bytes) | tiles(7)
    maps |= {"INTEGER": cells["INTEGER"]}
    yield lambda fusion=False: compiled(fused_kernel.count_cells, cells, words, fusion)
    yield lambda fusion=False: compiled(map_kernel.count_maps, maps, words, fusion)


def tiles(size, zero=True):
    from ndissect.engine.measures import map_tiles

    return map_tiles.tiles_of(torch.empty(2, 2, size, size)).constants | {"ZERO": zero}


@pytest.fixture
def compiler(tmp_path, monkeypatch):
    pytest.importorskip("triton")
    if os.environ.get("TRITON_INTERPRET") == "1":
        pytest.skip("Triton is interpreting")
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))


@pytest.mark.usefixtures("compiler")
@pytest.mark.parametrize("form", FORMS)
def test_compiled_they_multiply_and_add_in_two_roundings(form):
    """mul.rn and add.rn may not be joined by any later stage; without the suffix they may, and fma is joined."""
    for kernel in counting_kernels(form):
        ptx = kernel().asm["ptx"]
        multiplied = re.findall(r"\b(?:mul|add|sub)\.[a-z.]*f32", ptx)
        assert {"mul.rn.f32", "add.rn.f32"} <= set(multiplied) <= {"mul.rn.f32", "add.rn.f32", "sub.rn.f32"}
        assert not re.search(r"\b(fma|mad)\.[a-z.]*f\d\d", ptx)
        assert ".ftz" not in ptx  # which would make the smallest numbers zero
    # So would the kernel be if nothing was asked for.
    assert re.search(r"\bfma\.rn\.f32", kernel(fusion=True).asm["ptx"])


@pytest.mark.usefixtures("compiler")
@pytest.mark.parametrize("form", FORMS)
def test_what_a_warp_counts_stays_in_its_registers_and_in_one_layout(form):
    for kernel in counting_kernels(form):
        program = kernel()
        assert program.metadata.shared == 0
        assert "convert_layout" not in program.asm["ttgir"]


@pytest.mark.usefixtures("compiler")
@pytest.mark.parametrize(("size", "kind"), MAPS)
def test_the_search_for_cells_compiles_for_maps_of_any_size_and_type(size, kind):
    from ndissect.engine.measures import cell_search_kernel

    for zero in (False, True):
        for kernel in (cell_search_kernel.count_active, cell_search_kernel.write_active):
            ptx = compiled(kernel, tiles(size, zero), {"maps": f"*{kind}"}).asm["ptx"]
            assert ".ftz" not in ptx


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
