"""The KL divergence's weight at the beginning of a run, kept on the device, where a captured step reads it."""

from fastvae.objectives import Objective


class KlWarmup:
    """Raises the share of the KL divergence's weight linearly from 0 at the first step to 1 after `steps` of them.

    Source: Bowman et al. 2016 (arXiv:1511.06349), section 3.1; the linear form is that of Sønderby et al. 2016
    (arXiv:1602.02282).

    Args:
        objective: whose `kl_share` is set; on its device.
        steps: for which the weight rises; 0: it does not.
    """

    def __init__(self, objective: Objective, steps: int):
        self.steps = steps if objective.kl_share is not None else 0
        self._share, self._alpha = objective.kl_share, getattr(objective.options, "alpha", 1.0)
        self._now = 1.0

    @property
    def weight(self) -> float | None:
        """The KL divergence's weight in the last step, or None if it does not rise any more."""
        return self._alpha * self._now if self._now < 1 else None

    def set_step(self, step: int) -> None:
        """Sets the share that step number `step` has, from 0, unless it is set already."""
        now = min(1.0, step / self.steps) if self.steps else 1.0
        if now != self._now:
            self._now = now
            self._share.fill_(now)
