import torch
from torch import nn

from understudy.reinforcement.critics import Critics, follow


def critics(seed=0):
    return Critics(3, 4, (8, 6), torch.Generator().manual_seed(seed))


def test_each_is_a_network_of_its_own():
    """Against torch's own layers, one critic at a time."""
    many, rows = critics(), torch.randn(5, 4, generator=torch.Generator().manual_seed(1))
    state = many.state_dict()
    answers = many(rows)
    assert answers.shape == (3, 5)
    for number in range(3):
        layers = []
        for layer, (before, after) in enumerate(((4, 8), (8, 6), (6, 1))):
            linear = nn.Linear(before, after)
            linear.weight.data = state[f"_weights.{layer}"][number].T.clone()
            linear.bias.data = state[f"_biases.{layer}"][number, 0].clone()
            layers += [linear] + ([nn.LayerNorm(after, elementwise_affine=False), nn.ReLU()] if after > 1 else [])
        torch.testing.assert_close(nn.Sequential(*layers)(rows)[:, 0], answers[number])
    assert not torch.allclose(answers[0], answers[1])


def test_they_follow_others_by_a_share_of_the_way():
    slow, fast = critics(), critics(seed=5)
    before = [parameter.detach().clone() for parameter in slow.parameters()]
    follow(slow.parameters(), fast.parameters(), 0.25)
    for was, now, other in zip(before, slow.parameters(), fast.parameters(), strict=True):
        torch.testing.assert_close(now.detach(), 0.75 * was + 0.25 * other.detach())
