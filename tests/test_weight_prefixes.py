"""The network's weights under any prefix in a file: taken where all of them are there, told, and chosen by the user."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from cli import nd
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from ndissect.engine.networks.prefixes import complete_prefixes
from ndissect.engine.networks.resolve import load_network
from ndissect.engine.networks.weights import apply_state
from ndissect.store.errors import NDError, WrongUse

NET = """
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.fc = nn.Conv2d(3, 4, 3), nn.Linear(4, 2)

    def forward(self, x):
        return self.fc(self.conv(x).mean((2, 3)))
"""


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.fc = nn.Conv2d(3, 4, 3), nn.Linear(4, 2)


class Holder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.model = Net()


def values(module: nn.Module, seed: int = 5) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {k: torch.rand(v.shape, generator=generator) for k, v in module.state_dict().items()}


def under(prefix: str, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {prefix + key: value for key, value in state.items()}


def equal(module: nn.Module, state: Mapping[str, Tensor]) -> bool:
    return all(torch.equal(v, state[k]) for k, v in module.state_dict().items())


OUTSIDE = {"queue": torch.zeros(3), "loss.weight": torch.ones(2)}


@pytest.mark.parametrize(
    "prefix",
    [
        "model.",
        "backbone.",
        "module.encoder_q.",
        "encoder.",
        "module.",
        "_orig_mod.module.",
        "a.b.c.d.",
        "model.model.",
    ],
)
@pytest.mark.parametrize("outside", [{}, OUTSIDE], ids=["alone", "beside others"])
def test_any_prefix_of_all_weights_is_taken(prefix: str, outside: dict[str, Tensor]) -> None:
    module, state = Net(), values(Net())
    fit = apply_state(module, under(prefix, state) | outside, "w.pt")
    assert equal(module, state)
    assert (fit.prefix, fit.outside) == (prefix, tuple(outside))
    assert (fit.missing, fit.unexpected, fit.mismatched) == ((), (), ())


def test_a_network_with_a_child_called_model_is_found_in_a_file_of_one() -> None:
    module, state = Holder(), values(Holder())
    assert apply_state(module, under("model.", state), "w.pt").prefix == "model."
    assert equal(module, state)
    assert apply_state(Net(), state, "w.pt").prefix == "model."
    again = Holder()
    apply_state(again, state, "w.pt")
    assert equal(again, state)


def test_a_prefix_around_parts_that_were_wrapped() -> None:
    module, state = Holder(), values(Holder())
    wrapped = {k.replace("conv.", "module.conv.module."): v for k, v in under("module.encoder.", state).items()}
    fit = apply_state(module, wrapped | OUTSIDE, "w.pt")
    assert equal(module, state)
    assert fit.prefix == "encoder."


def test_of_several_complete_prefixes_the_user_chooses() -> None:
    first, second = values(Net(), 1), values(Net(), 2)
    both = under("module.encoder_q.", first) | under("module.encoder_k.", second) | OUTSIDE
    with pytest.raises(NDError, match=r"2 times, under 'module\.encoder_q\.', 'module\.encoder_k\.'") as caught:
        apply_state(Net(), both, "w.pt", partial=True)
    assert "--weights-prefix" in caught.value.hint
    for given_, state in (
        ("module.encoder_k.", second),
        ("module.encoder_k", second),
        ("encoder_k", second),
        ("encoder_q.", first),
    ):
        module = Net()
        fit = apply_state(module, both, "w.pt", prefix=given_)
        assert equal(module, state), given_
        assert len(fit.outside) == 4 + len(OUTSIDE)
    with pytest.raises(WrongUse, match=r"begins with 'enc\.'") as caught:
        apply_state(Net(), both, "w.pt", prefix="enc")
    assert "'module.', 'queue." in caught.value.hint


def test_what_is_not_complete_is_never_loaded_in_silence() -> None:
    state = under("backbone.", values(Net()))
    del state["backbone.fc.bias"]
    module = Net()
    before = {k: v.clone() for k, v in module.state_dict().items()}
    for partial in (False, True):
        with pytest.raises(NDError, match="none of its 5 keys fits") as caught:
            apply_state(module, state | OUTSIDE, "w.pt", partial)
        assert "3 of the network's 4 are under 'backbone.': --weights-prefix backbone. --partial" in caught.value.hint
    with pytest.raises(NDError, match=r"under 'backbone\.': 1 missing in the file: fc\.bias"):
        apply_state(module, state | OUTSIDE, "w.pt", prefix="backbone.")
    assert equal(module, before)
    fit = apply_state(module, state | OUTSIDE, "w.pt", partial=True, prefix="backbone.")
    assert (fit.missing, fit.outside) == (("fc.bias",), tuple(OUTSIDE))


def test_a_prefix_with_more_than_the_network_is_refused_unless_partial() -> None:
    state = under("model.", values(Net()) | {"extra.weight": torch.ones(1)})
    with pytest.raises(NDError, match=r"under 'model\.': 1 not in the network: extra\.weight"):
        apply_state(Net(), state, "w.pt")
    assert apply_state(Net(), state, "w.pt", partial=True).unexpected == ("extra.weight",)


def test_weights_of_other_shapes_make_no_prefix() -> None:
    state = under("a.", values(Net())) | {k: torch.ones(1) for k in under("b.", values(Net()))}
    assert apply_state(Net(), state, "w.pt").prefix == "a."


names = st.lists(st.sampled_from(["a", "b", "module", "conv"]), max_size=3).map(
    lambda parts: "".join(f"{p}." for p in parts)
)


@settings(max_examples=100, deadline=None)
@given(st.lists(names, max_size=4), st.dictionaries(names.map(lambda n: n + "weight"), st.just(torch.zeros(1))))
def test_a_prefix_is_complete_where_every_weight_is_under_it(prefixes: list[str], more: dict[str, Tensor]) -> None:
    own = {"conv.weight": torch.zeros(2), "a.conv.weight": torch.zeros(3), "a.num_batches_tracked": torch.zeros(())}
    state = dict(more)
    for prefix in prefixes:
        state |= under(prefix, own)
    needed = {k: v for k, v in own.items() if "num" not in k}
    every = {key[:at] for key in state for at in range(len(key)) if at == 0 or key[at - 1] == "."}
    right = {p for p in every if all(p + k in state and state[p + k].shape == v.shape for k, v in needed.items())}
    assert set(complete_prefixes(own, state)) == right


def test_many_names_are_looked_at_once_each() -> None:
    own = {f"layer{i}.weight": torch.zeros(1) for i in range(3_000)}
    state = {f"part{j}.{key}": value for j in range(20) for key, value in own.items() if j or key != "layer0.weight"}
    assert len(complete_prefixes(own, state)) == 19


def test_the_prefix_is_told_and_kept_in_the_provenance(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(NET)
    torch.save({"state_dict": under("backbone.", values(Net())) | OUTSIDE}, tmp_path / "w.pt")
    network = load_network(f"{tmp_path}/net.py:Net", weights=tmp_path / "w.pt")
    assert network.origin["weights_prefix"] == "backbone."
    assert network.origin["weights_outside"] == "queue, loss.weight"
    assert any("under 'backbone.' in the file; 2 outside of it: queue, loss.weight" in note for note in network.notes)
    torch.save(under("module.", values(Net())), tmp_path / "w.pt")
    assert not any("module." in note for note in load_network(f"{tmp_path}/net.py:Net", tmp_path / "w.pt").notes)


def test_nd_takes_the_prefix_and_the_set_by_flags(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(NET)
    sets = {"student": under("q.", values(Net())) | under("k.", values(Net())), "teacher": values(Net())}
    torch.save(sets, tmp_path / "w.pt")
    done = nd("layers", "net.py:Net", "--input-size", "32", "--weights", "w.pt", folder=tmp_path)
    assert done.returncode == 1
    assert "w.pt holds several sets of weights: student, teacher" in done.stderr
    assert "--weights-key NAME chooses" in done.stderr
    given_ = ("--weights-key", "student", "--weights-prefix", "k")
    done = nd("layers", "net.py:Net", "--input-size", "32", "--weights", "w.pt", *given_, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "'student' is taken; there are also teacher" in done.stderr
    assert "under 'k.' in the file; 4 outside of it" in done.stderr
