"""The class scores in what networks return."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor

from ndissect.engine.networks.scores import class_scores, raw_scores
from ndissect.store.errors import WrongUse

SCORES = torch.arange(10, dtype=torch.float64).view(2, 5)


@dataclass
class Output:
    loss: None
    hidden: Tensor
    logits: Tensor


@pytest.mark.parametrize(
    "output",
    [
        SCORES,
        SCORES[:, :, None, None],
        (SCORES, torch.zeros(2, 3)),
        [[SCORES]],
        {"features": torch.zeros(2, 7), "logits": SCORES},
        Output(None, torch.zeros(2, 4), SCORES),
    ],
)
def test_scores_are_found_in_whatever_holds_them(output: Any) -> None:
    scores = class_scores("net", output)
    assert scores.dtype == torch.float32
    assert torch.equal(scores, SCORES.float())
    assert raw_scores("net", output).dtype == torch.float64


@pytest.mark.parametrize(
    ("output", "said"),
    [
        (torch.zeros(2, 21, 4, 4), "values for every pixel"),
        ({"out": torch.zeros(2, 3, 8, 8)}, "values for every pixel"),
        (torch.zeros(2), "one number for each image"),
        (torch.zeros(2, 17, 8), "a tensor of shape (N, 17, 8)"),
        (torch.zeros(2, 5, dtype=torch.int64), "values of type int64"),
        (torch.zeros(2, 0), "shape (N, 0)"),
        ("nothing", "a str without a tensor"),
        (None, "without a tensor"),
    ],
)
def test_what_says_no_class_of_an_image_is_refused(output: Any, said: str) -> None:
    with pytest.raises(WrongUse) as e:
        class_scores("my.py:net", output)
    assert e.value.message.startswith("my.py:net returns no class scores")
    assert said in e.value.message
    assert "a class is" in e.value.hint
