"""The learning rates of a run, kept on the device, where a captured step reads them at every replay."""

import torch

from fastvae.objectives import Update


class LearningRates:
    """Makes each parameter group's `lr` a 0-D float32 tensor and scales it by decay^epoch.

    Args:
        updates: the optimisers; each group's `lr` is its initial learning rate, a number.
        decay: factor after each epoch, in (0, 1].
        device: of the parameters.
    """

    def __init__(self, updates: dict[str, Update], decay: float, device: torch.device):
        self._decay, self._epoch = decay, 0
        groups = [group for update in updates.values() for group in update.optimizer.param_groups]
        self._initial = [float(group["lr"]) for group in groups]
        for group, initial in zip(groups, self._initial, strict=True):
            group["lr"] = torch.tensor(initial, dtype=torch.float32, device=device)
        self._tensors = [group["lr"] for group in groups]

    @property
    def first(self) -> float:
        """The first group's current rate, without a host-device sync."""
        return self._initial[0] * self._decay**self._epoch

    def set_epoch(self, epoch: int) -> None:
        """Sets the rates of an epoch, counted from 0, unless they are set already."""
        if epoch != self._epoch:
            self._epoch = epoch
            for tensor, initial in zip(self._tensors, self._initial, strict=True):
                tensor.fill_(initial * self._decay**epoch)
