"""Predictions without sets of units where the class scores are linear in the maps: exact, for all sets at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from ndissect.engine.networks.linear_head import LinearHead

# Scores that are made at a time before the largest is taken: as many as caches hold, or as keep a GPU busy.
_AT_A_TIME = {"cpu": 1 << 19, "cuda": 1 << 26}


class ClosedForm:
    """Scores without each of ``sets`` of units, by ``head``, on ``device``."""

    def __init__(self, head: LinearHead, sets: Sequence[tuple[int, ...]], device: torch.device) -> None:
        places = head.weight[0, 0].numel()
        # (U * places, K): what each place of each unit adds to the scores.
        self._weight = head.weight.flatten(1).t().to(device, torch.float32).contiguous()
        self._pooled, self._places, self._sets = head.pooled, places, len(sets)
        self._at_a_time = _AT_A_TIME.get(device.type, _AT_A_TIME["cpu"])
        alone = [(row, units[0]) for row, units in enumerate(sets) if len(units) == 1]
        several = [row for row, units in enumerate(sets) if len(units) > 1]
        self._alone = torch.tensor([row for row, _ in alone], dtype=torch.int64, device=device)
        self._unit = torch.tensor([unit for _, unit in alone], dtype=torch.int64, device=device)
        self._several = torch.tensor(several, dtype=torch.int64, device=device)
        self._member = torch.zeros(len(several), len(head.weight[0]), device=device)
        for i, row in enumerate(several):
            self._member[i, list(sets[row])] = 1

    def predict(self, scores: Tensor, maps: Tensor, stand_in: Tensor, truth: Tensor) -> tuple[Tensor, Tensor]:
        """(N, E) int32: the class of the largest score without each set; (N, E) float32: the score of ``truth`` (N,).

        ``scores`` (N, K): those with all units; ``maps`` (N, U, h, w), and ``stand_in``, what takes their place.
        """
        n = len(scores)
        predicted = torch.empty(n, self._sets, dtype=torch.int32, device=scores.device)
        own = torch.empty(n, self._sets, device=scores.device)
        gone = maps.float() - stand_in.float()
        gone = gone.mean((2, 3)) if self._pooled else gone.flatten(1)
        for rows, without in self._without(scores.float(), gone):
            predicted[:, rows] = without.argmax(2).int()
            own[:, rows] = without.gather(2, truth[:, None, None].expand(-1, len(rows), 1))[..., 0]
        return predicted, own

    def _without(self, scores: Tensor, gone: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Rows of sets and their scores (N, rows, K), some at a time; ``gone`` (N, U * places): what is taken away."""
        n, classes = scores.shape
        by_unit = gone.view(n, -1, self._places)
        weight = self._weight.view(-1, self._places, classes)
        step = max(1, self._at_a_time // (n * classes))
        for start in range(0, len(self._alone), step):
            rows, units = self._alone[start : start + step], self._unit[start : start + step]
            if self._pooled:
                without = torch.addcmul(scores[:, None], by_unit[:, units], weight[units, 0], value=-1)
            else:
                lost = torch.bmm(by_unit[:, units].transpose(0, 1), weight[units])  # (rows, N, K)
                without = scores[:, None] - lost.transpose(0, 1)
            yield rows, without
        step = max(1, self._at_a_time // (n * max(classes, gone.shape[1])))
        for start in range(0, len(self._several), step):
            member = self._member[start : start + step, :, None]
            taken = (by_unit[:, None] * member).flatten(2)  # (N, rows, U * places)
            yield self._several[start : start + step], scores[:, None] - taken @ self._weight
