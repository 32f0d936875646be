"""What holds a dissection up, in words: decoding, the network, or all that is done beside them."""

from __future__ import annotations

from collections.abc import Mapping

#: What the dissection does beside decoding and the network is the bottleneck above this share of the time.
_MOST = 0.5
#: Phases of a run that decoding and the network account for.
_UNAVOIDABLE = ("decode", "copy", "forward", "check")


def other_share(seconds: Mapping[str, float]) -> float:
    """The share of the ``dissect`` seconds that decoding and the network, ``decode_forward``, do not take."""
    return max(0.0, 1 - seconds["decode_forward"] / seconds["dissect"])


def name_bottleneck(seconds: Mapping[str, float], images: int, workers: int, phases: Mapping[str, float]) -> str:
    """What to make faster first.

    ``seconds``: of decoding and of the network alone (``decode``, ``forward``), of both (``decode_forward``) and of the
    dissection (``dissect``), each for ``images`` images; ``phases``: where those of the dissection went.
    """
    decode, network = images / seconds["decode"], images / seconds["forward"]
    share = other_share(seconds)
    if share > _MOST:
        longest = sorted((s, what) for what, s in phases.items() if what not in _UNAVOIDABLE)[-3:]
        where = ", ".join(f"{what} {100 * s / seconds['dissect']:.0f} %" for s, what in reversed(longest))
        return f"the host: {100 * share:.0f} % of the time is neither decoding nor the network ({where})"
    by = f"{workers} worker{'s' * (workers != 1)}"
    if decode < network:
        return f"decoding: {by} give{'s' * (workers == 1)} {decode:,.0f} images/s, the network takes {network:,.0f}"
    return f"the network: it takes {network:,.0f} images/s, {by} decode{'s' * (workers == 1)} {decode:,.0f}"
