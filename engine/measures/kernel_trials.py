"""Whether a kernel is to be used in this process: what it was tried on, and why not any more."""

from __future__ import annotations

import os
from collections.abc import Hashable
from dataclasses import dataclass, field

import torch


@dataclass
class KernelTrials:
    """What this process has learnt of a kernel that stands in for plain operations.

    ``why_not``: the reason not to use it any more, in a line; ``tried``: the forms of it that did as the plain
    operations do.
    """

    why_not: str | None = None
    tried: set[Hashable] = field(default_factory=set)

    def wanted(self, device: torch.device) -> bool:
        """Whether to use it: on a GPU, or in Triton's interpreter, unless it is turned off or has failed."""
        interpreted = os.environ.get("TRITON_INTERPRET") == "1"
        off = os.environ.get("ND_FUSED") == "0"
        return (device.type == "cuda" or interpreted) and not off and self.why_not is None

    def failed(self, error: Exception) -> None:
        """Keep why it cannot be used, whatever that is: the plain operations do the same."""
        self.why_not = f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0][:160]}"
