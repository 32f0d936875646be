"""Whether what comes out of a forward pass is linear in a layer's maps, by what autograd recorded of the operations.

What depends on the maps is known of every tensor, through views and changes in place as well, since autograd follows it
there. Each operation between the maps and the scores must be one of those below; any other is not linear, a ReLU that
changes nothing on these images too. What autograd does not see is watched for: values that the network's code looks at
(a comparison, ``item()``, ``detach()``).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import BackwardCFunction
from torch.autograd.graph import Node
from torch.overrides import TorchFunctionMode

from ndissect.engine.networks.taps import every_tensor

# Linear in all that they take, together. Names are those of autograd, without "Backward" and a number.
_LINEAR_NAMES = """
Add Sub Rsub Neg Sum Mean View UnsafeView ReshapeAlias Permute Transpose T Squeeze Unsqueeze Expand Select Slice Index
IndexSelect Gather Cat Stack Split SplitWithSizes UnsafeSplit Unbind Clone ToCopy Copy Alias AsStrided Repeat Roll Flip
Unfold Diagonal Cumsum ConstantPadNd ReflectionPad2D ReplicationPad2D AvgPool2D AdaptiveAvgPool2D
MkldnnAdaptiveAvgPool2D UpsampleNearest2D UpsampleNearestExact2D UpsampleBilinear2D UpsampleBilinear2DAa
UpsampleBicubic2D UpsampleBicubic2DAa PixelShuffle PixelUnshuffle Im2Col Col2Im MaskedFill Where
"""
_LINEAR = frozenset(_LINEAR_NAMES.split())
# Products: linear where only one of these two factors depends on the maps.
_PRODUCTS = {
    **dict.fromkeys(("Mul", "Mm", "Bmm", "Mv", "Dot", "Convolution", "Linear"), (0, 1)),
    **dict.fromkeys(("Addmm", "Addbmm", "Baddbmm", "Addmv", "Addcmul"), (1, 2)),
}
# Linear in what they take first alone.
_FIRST = frozenset({"Div", "GridSampler2D"})
# The same, unless they normalize by the batch itself.
_NORMALIZATIONS = frozenset({"NativeBatchNorm", "CudnnBatchNorm", "MiopenBatchNorm"})
# Something is written into a part of a tensor. Autograd does not say how; maps that enter a layer's output are copied.
_INTO_A_PART = "CopySlices"

# What gives values to the network's code as numbers; and what takes no more than a shape of a tensor.
_NUMBERS_NAMES = """
item tolist numpy equal allclose is_nonzero __bool__ __float__ __int__ __index__ __array__ __contains__
"""
_NUMBERS = frozenset(_NUMBERS_NAMES.split())
_SHAPES_NAMES = """
zeros_like ones_like empty_like full_like rand_like randn_like new_zeros new_ones new_empty new_full new_tensor
"""
_SHAPES = frozenset(_SHAPES_NAMES.split())


class ValuesLookedAt(TorchFunctionMode):
    """Notes in ``nodes`` where autograd stood when a value was used in a way that it does not follow."""

    def __init__(self) -> None:
        super().__init__()
        self.nodes: list[Node] = []

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        taken = [t.grad_fn for t in every_tensor((args, kwargs)) if t.grad_fn is not None]
        output = func(*args, **kwargs)
        name = getattr(func, "__name__", "")
        if taken and name not in _SHAPES:
            # Without gradients a tensor may change in place: it still requires some, and autograd knows nothing of it.
            lost = any(not (t.requires_grad and torch.is_grad_enabled()) for t in every_tensor(output))
            if lost or name in _NUMBERS:
                self.nodes += taken
        return output


def linear_in(
    marked: Mapping[str, Node], result: Tensor, looked_at: Sequence[Node] = (), others: Iterable[Node] = ()
) -> set[str]:
    """The names of ``marked`` in which ``result`` is linear.

    ``marked``: what autograd recorded of the maps' entry into the network; ``looked_at``: by :class:`ValuesLookedAt`;
    ``others``: entries of maps that ``marked`` leaves out.
    """
    if result.grad_fn is None:
        return set()
    order = _in_order([result.grad_fn, *looked_at])
    entries = {*marked.values(), *others}
    return {name for name, node in marked.items() if _is_linear(node, result.grad_fn, order, looked_at, entries)}


def _in_order(roots: Iterable[Node]) -> list[Node]:
    """All nodes behind ``roots``; each comes after all that it takes something from."""
    order: list[Node] = []
    seen: set[Node] = set()
    for root in roots:
        stack: list[tuple[Node, bool]] = [(root, False)]
        while stack:
            node, whole = stack.pop()
            if whole:
                order.append(node)
            elif node not in seen:
                seen.add(node)
                stack.append((node, True))
                stack += [(before, False) for before, _ in node.next_functions if before is not None]
    return order


def _is_linear(entry: Node, result: Node, order: Sequence[Node], looked_at: Sequence[Node], entries: set[Node]) -> bool:
    depend = {entry}
    for node in order:
        if node is entry:
            continue
        taken = [i for i, (before, _) in enumerate(node.next_functions) if before in depend]
        if taken:
            depend.add(node)
            if not _operation_is_linear(node, taken, entries):
                return False
    return result in depend and depend.isdisjoint(looked_at)


def _operation_is_linear(node: Node, taken: list[int], entries: set[Node]) -> bool:
    """Whether what ``node`` stands for is linear in its inputs of the numbers ``taken``, together."""
    if isinstance(node, BackwardCFunction):  # of somebody's own, whatever it is called
        return False
    name = re.sub(r"Backwards?\d*$", "", node.name().rpartition("::")[2])
    if name in _LINEAR:
        return True
    if name in _PRODUCTS:
        return not set(_PRODUCTS[name]) <= set(taken)
    if name in _NORMALIZATIONS:
        return taken == [0] and not getattr(node, "_saved_training", True)
    if name == _INTO_A_PART:
        written = [before for before, _ in node.next_functions[1:]]
        return bool(written) and all(before in entries for before in written)
    # A quotient that is rounded is none of these.
    return name in _FIRST and taken == [0] and getattr(node, "_saved_rounding_mode", None) is None
