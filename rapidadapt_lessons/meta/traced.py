"""The meta-gradient without its overhead: PyTorch's operations are recorded once, and then replayed.

At the size of the lessons' networks, most of a meta-gradient's time goes into deciding what to do next: autograd,
`vmap`, Python. All of it comes out the same for every batch of one shape. So `TracedMetaGradient` writes down the
operations that arrive in the end, drops those that repeat another or change nothing, and runs the rest. It needs no
C++ compiler; `torch.compile` with its default backend is faster still, and does.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import GraphModule, Node
from torch.utils._pytree import tree_leaves

from ..errors import CourseError
from .maml import MetaGradient, meta_gradient
from .task_batch import InnerRate, Params, TaskBatch

MOST_TRACES = 8  # kept at one time
ATEN = torch.ops.aten
UNCHANGED = (ATEN.detach.default, ATEN.view.default, ATEN._unsafe_view.default, ATEN.expand.default)  # at most in shape


class TracedMetaGradient:
    """`meta_gradient`, called in the same way, faster from the second call on: `meta_step(..., gradient=traced)`.

    The first call with a module, with shapes and with options takes half a second or so. The module's code runs in
    that call alone; parameters that `params` does not name are read each time, and must be changed in place.
    """

    def __init__(self) -> None:
        self.traces: dict[Hashable, GraphModule] = {}

    def __call__(
        self, module: nn.Module, params: Params, batch: TaskBatch, *, inner_lr: InnerRate, **options: Any
    ) -> MetaGradient:
        """Return what `meta_gradient` returns. Raises as it does, and CourseError for a team, and for one tensor as the
        rate of all parameters: neither can be replayed.
        """
        if options.get("team") is not None or isinstance(inner_lr, Tensor):
            told = "a team shares the tasks" if options.get("team") is not None else "inner_lr is one tensor"
            raise CourseError(
                f"{told}, which cannot be replayed.", "use meta_gradient, or one rate for each parameter."
            )
        rates = dict(inner_lr) if isinstance(inner_lr, Mapping) else {}
        inputs = (
            {name: p.detach() for name, p in params.items()},
            {n: r.detach() for n, r in rates.items()},
            batch.parts,
        )
        if (adaptable := options.get("adaptable")) is not None:
            options["adaptable"] = (adaptable,) if isinstance(adaptable, str) else tuple(adaptable)
        form = tuple((t.shape, t.dtype, t.device) for t in tree_leaves(inputs))
        modes = tuple(part.training for part in module.modules())
        key = (module, modes, (*params,), form, (*rates,) or inner_lr, tuple(sorted(options.items())))
        if key not in self.traces:
            if len(self.traces) >= MOST_TRACES:
                del self.traces[next(iter(self.traces))]
            self.traces[key] = _trace(module, inputs, inner_lr if not rates else None, options)
        with torch.no_grad():
            return MetaGradient(*self.traces[key](*inputs))


def _trace(module: nn.Module, inputs: tuple, inner_lr: float | None, options: Mapping[str, Any]) -> GraphModule:
    """Return the operations of a meta-gradient of such inputs; `inner_lr` is a number, or None where inputs hold it."""
    from torch.fx.experimental.proxy_tensor import make_fx

    def compute(params: Params, rates: Params, parts: tuple) -> tuple[Tensor, Params, Params]:
        alpha = rates if inner_lr is None else inner_lr
        found = meta_gradient(module, params, TaskBatch(*parts), inner_lr=alpha, **options)
        return found.loss, found.params, found.inner_lr

    return _shortened(make_fx(compute)(*inputs))


def _shortened(traced: GraphModule) -> GraphModule:
    """Take out what repeats an operation or changes nothing. One that writes in place forbids it: then all stays."""
    calls = [node for node in traced.graph.nodes if node.op == "call_function"]
    if any(node.target._schema.is_mutable for node in calls if isinstance(node.target, torch._ops.OpOverload)):
        return traced
    seen: dict[Hashable, Node] = {}
    for node in calls:
        same = (
            node.args[0]
            if _changes_nothing(node)
            else seen.setdefault((node.target, str(node.args), str(node.kwargs)), node)
        )
        if same is not node:
            node.replace_all_uses_with(same)
            traced.graph.erase_node(node)
    traced.graph.eliminate_dead_code()
    traced.recompile()
    return traced


def _changes_nothing(node: Node) -> bool:
    """Return whether the result holds the very numbers of the first argument, in the same shape, layout and type."""
    if node.target not in UNCHANGED and not (node.target is ATEN.mul.Scalar and node.args[1] == 1):
        return False
    was, now = node.args[0].meta["val"], node.meta["val"]
    return (was.shape, was.stride(), was.dtype) == (now.shape, now.stride(), now.dtype)
