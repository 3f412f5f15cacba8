"""The mean over all ranks of a pass's gradients and terms: one all-reduce between the backward pass and the updates."""

import torch
from torch import Tensor

from fastvae.distributed.ranks import Ranks
from fastvae.objectives import Pass, Update
from fastvae.train.snapshot import gathered_bytes, views


class AveragedGradients:
    """Gathers what is to be averaged in one buffer for each pass, in float32; the gradients then lie in it.

    The terms come along, a few numbers at its end: so a log line has means over all images of a step, every rank sees
    in the same step that one is not finite, and what depends on terms, a gate, is the same everywhere; none needs an
    operation of its own. As captured in a CUDA graph, an average is one launch that copies, and NCCL's.

    Args:
        updates: the objective's optimisers, by name.
        ranks: of the run.
    """

    def __init__(self, updates: dict[str, Update], ranks: Ranks):
        self._updates, self._ranks = updates, ranks
        self._buffers: dict[str, tuple[Tensor, dict[Tensor | str, Tensor]]] = {}

    @torch.no_grad()
    def average(self, pass_: Pass, terms: dict[str, Tensor]) -> dict[str, Tensor]:
        """Averages the gradients that a pass's updates read, in place, and its terms.

        Args:
            pass_: after its backward pass.
            terms: what its loss reported, scalars.

        Returns:
            The averaged terms, valid until the next call for this pass.
        """
        groups = (group for name in pass_.updates for group in self._updates[name].optimizer.param_groups)
        params = [p for group in groups for p in group["params"] if p.grad is not None]
        dtype = params[0].dtype
        tensors = {p: p.grad for p in params} | {name: term.to(dtype) for name, term in terms.items()}
        if pass_.name not in self._buffers:
            buffer = torch.zeros(gathered_bytes(tensors), dtype=torch.uint8, device=params[0].device)
            # Between the tensors are zeros, which are averaged, too.
            self._buffers[pass_.name] = buffer.view(dtype), views(tensors, buffer)
        flat, into = self._buffers[pass_.name]
        torch._foreach_copy_([into[key] for key in tensors], list(tensors.values()))
        self._ranks.average_(flat)
        for p in params:
            p.grad = into[p]
        return {name: into[name] for name in terms}
