"""Advantages: how much better an action turned out than what usually follows from its state."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from understudy.episode import Episode


def discounted(rewards: NDArray[np.float64], gamma: float, last: float) -> NDArray[np.float64]:
    """R_t = r_t + gamma R_(t+1) with R_T = `last`, (T,).

    Args:
        rewards: (T,).
        gamma: discount.
        last: what is to come after the last step: 0 where the task ended, a value where only the time ran out.
    """
    result = np.empty(len(rewards))
    total = last
    for step in range(len(rewards) - 1, -1, -1):
        total = rewards[step] + gamma * total
        result[step] = total
    return result


def generalised_advantages(
    rewards: NDArray[np.float64], values: NDArray[np.float64], gamma: float, lam: float
) -> NDArray[np.float64]:
    """A_t = sum_l (gamma lam)^l d_(t+l) with d_t = r_t + gamma V_(t+1) - V_t, (T,).

    Schulman et al. 2016, "High-Dimensional Continuous Control Using Generalized Advantage Estimation", equation 16.

    Args:
        rewards: (T,).
        values: (T + 1,) of the observations before each step, and of what comes after the last one (`last_value`).
        gamma: discount.
        lam: 0 trusts the values, 1 the rewards.
    """
    return discounted(rewards + gamma * values[1:] - values[:-1], gamma * lam, 0.0)


def last_value(episode: Episode, value: float) -> float:
    """What is to come after the episode's last step, where its last observation has this value.

    A task that ended has no future. One whose time ran out has one that nobody looked at, so its value stands in.
    """
    return 0.0 if episode.terminated else value


def whitened(advantages: NDArray[np.float64]) -> NDArray[np.float64]:
    """The advantages of a batch with mean 0 and deviation 1, (N,); all 0 where they do not differ."""
    centred = advantages - advantages.mean()
    deviation = centred.std()
    differ = deviation > 1e-8 * np.abs(advantages).max(initial=0.0)  # in any unit, beyond rounding
    return np.asarray(centred / deviation if differ else np.zeros_like(centred))
