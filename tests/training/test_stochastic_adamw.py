import copy

import torch

from experiments.training.stochastic_adamw import CHUNK, StochasticAdamW, round_at_random


def trained(optimizer_class, dtype, num_steps=60, lr=2e-5, weights=None, state=None):
    """Train weights towards a target, a thousandth of their size away, and return them in float64."""
    start = torch.linspace(0.5, 1.5, 2000)
    weight = torch.nn.Parameter((start if weights is None else weights).to(dtype))
    optimizer = optimizer_class([weight], lr=lr, betas=(0.9, 0.95), weight_decay=0.0)
    if state:
        optimizer.load_state_dict(state)
    for _ in range(num_steps):
        optimizer.zero_grad()
        (weight.float() - start * 1.01).square().sum().backward()
        optimizer.step()
    return weight.detach(), optimizer


def test_the_expectation_of_a_rounded_value_is_the_value():
    values = torch.full((200_000,), 1.0 + 0.3 / 128)  # three tenths of the way from 1 to the next bfloat16
    rounded = round_at_random(values, torch.Generator().manual_seed(0))
    assert set(rounded.tolist()) == {1.0, 1.0 + 1 / 128}
    assert abs(float((rounded > 1).double().mean()) - 0.3) < 0.005
    exact = torch.tensor([0.0, -2.5, 1 + 1 / 128, 3e38]).bfloat16().float()
    assert round_at_random(exact, torch.Generator().manual_seed(0)).equal(exact)


def test_float32_weights_are_trained_as_by_torch():
    ours, theirs = (trained(each, torch.float32)[0] for each in (StochasticAdamW, torch.optim.AdamW))
    torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-7)


def test_small_updates_of_bfloat16_weights_count():
    start = torch.linspace(0.5, 1.5, 2000)
    exact = float((trained(torch.optim.AdamW, torch.float32)[0] - start).double().mean())
    lost = float((trained(torch.optim.AdamW, torch.bfloat16)[0].double() - start.bfloat16().double()).mean())
    kept = float((trained(StochasticAdamW, torch.bfloat16)[0].double() - start.bfloat16().double()).mean())
    assert exact > 1e-3
    assert lost == 0  # each update is below half of the distance to the next bfloat16
    assert abs(kept - exact) < 0.1 * exact


def test_a_resumed_training_rounds_as_an_undisturbed_one():
    whole, _ = trained(StochasticAdamW, torch.bfloat16, 10)
    half, optimizer = trained(StochasticAdamW, torch.bfloat16, 5)
    torch.rand(3)  # other random numbers drawn meanwhile change nothing
    resumed, _ = trained(StochasticAdamW, torch.bfloat16, 5, weights=half, state=copy.deepcopy(optimizer.state_dict()))
    assert resumed.equal(whole)


def test_weights_are_updated_whole_where_they_are_more_than_a_chunk():
    weight = torch.nn.Parameter(torch.ones(CHUNK + 3, dtype=torch.bfloat16))
    weight.grad = torch.ones_like(weight)
    StochasticAdamW([weight], lr=0.5).step()
    assert weight.detach().eq(0.5).all()


def test_weights_are_trained_as_by_torch_however_they_lie_in_memory():
    for start in (torch.linspace(0.5, 1.5, 12).view(4, 3).t(), torch.tensor(2.0), torch.empty(0, 3)):
        ours, theirs = (torch.nn.Parameter(start.clone(memory_format=torch.preserve_format)) for _ in range(2))
        for weight, optimizer in ((ours, StochasticAdamW), (theirs, torch.optim.AdamW)):
            weight.grad = torch.ones(start.shape)
            optimizer([weight], lr=0.1, weight_decay=0.0).step()
        torch.testing.assert_close(ours, theirs)
