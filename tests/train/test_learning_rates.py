"""The schedule writes into the tensors that the optimisers read."""

import torch

from fastvae.objectives import Update
from fastvae.optim import ClippedAdam, ClippedRMSprop
from fastvae.train.learning_rates import LearningRates


def test_every_group_is_scaled_in_place():
    a, b, c = (torch.nn.Parameter(torch.zeros(2)) for _ in range(3))
    vae = Update(ClippedAdam([{"params": [a], "lr": 1e-3}, {"params": [b]}], lr=5e-4))
    critic = Update(ClippedRMSprop([c], lr=5e-5))
    rates = LearningRates({"vae": vae, "critic": critic}, 0.5, torch.device("cpu"))
    groups = [*vae.optimizer.param_groups, *critic.optimizer.param_groups]
    tensors = [group["lr"] for group in groups]
    for epoch in (0, 0, 1, 3):
        rates.set_epoch(epoch)
        found = torch.stack(tensors)
        assert torch.allclose(found, torch.tensor([1e-3, 5e-4, 5e-5]) * 0.5**epoch)
        assert all(group["lr"] is tensor for group, tensor in zip(groups, tensors, strict=True))
        assert rates.first == 1e-3 * 0.5**epoch


def test_an_update_uses_the_rate_of_its_epoch():
    p = torch.nn.Parameter(torch.zeros(1))
    update = Update(ClippedAdam([p], lr=0.1))
    rates = LearningRates({"vae": update}, 0.5, torch.device("cpu"))
    moved = []
    for epoch in (0, 1):
        rates.set_epoch(epoch)
        p.grad, before = torch.ones(1), p.detach().clone()
        update.apply({})
        moved.append((before - p.detach()).item())
    # With a constant gradient every Adam step is lr.
    assert torch.allclose(torch.tensor(moved), torch.tensor([0.1, 0.05]))
