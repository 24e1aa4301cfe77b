"""Draws docs/images/pick_place.png: the scripted expert of the bundled world approaches, carries and lets go.

python docs/images/pick_place.py
"""

from pathlib import Path

import gymnasium as gym
import numpy as np
from matplotlib.image import imsave

import understudy as us

SEED, MOMENTS = 17, (12, 46, 86)  # steps


class Pictures(us.Observer):
    """Keeps the picture after each of the chosen steps."""

    def __init__(self) -> None:
        self.kept: list[np.ndarray] = []

    def on_step(self, env: gym.Env, step: us.Step) -> None:
        """Draws where the step is one of the moments."""
        if step.index in MOMENTS:
            self.kept.append(env.render())


env = us.make_env("understudy/PickPlace-v0", render_mode="rgb_array", width=460, height=400)
pictures = Pictures()
us.rollout(env, us.Demonstrator(us.sim.PickPlaceExpert(env)), seed=SEED, observers=[pictures])
env.close()
gap = np.full((400, 8, 3), 255, np.uint8)
first, second, third = pictures.kept
imsave(Path(__file__).with_suffix(".png"), np.concatenate([first, gap, second, gap, third], axis=1))
