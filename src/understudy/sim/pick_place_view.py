"""What the bundled world looks like beside its model: soft shades in pictures, and a window."""

from __future__ import annotations

import os
import sys
import time

import mujoco
import numpy as np
from numpy.typing import NDArray

from understudy.errors import MissingDependency

# Body that casts the shade, its radius (m), the height at which it is gone (m), its strength.
_SHADES = (("cube", 0.026, 0.35, 0.13), ("link_6", 0.055, 0.70, 0.045))
_SHADE_DISCS = 7
_SHADE_COLOUR = (0.16, 0.12, 0.10)


def add_shades(scene: mujoco.MjvScene, data: mujoco.MjData) -> None:
    """Darkens the table under the cube and the hand, to show how high they are.

    Each shade is a stack of thin discs that grow. True shadows would cost eight times the frame in software.
    """
    table = data.model.geom("table")
    low, high = table.pos[:2] - table.size[:2], table.pos[:2] + table.size[:2]
    for body, radius, reach, strength in _SHADES:
        position = data.body(body).xpos
        height = float(position[2])
        if (position[:2] > low).all() and (position[:2] < high).all() and 0.0 < height < reach:
            alpha = strength * (1.0 - height / reach)
            _add_shade(scene, position, radius * (1.0 + 0.5 * height / reach), alpha)


def _add_shade(scene: mujoco.MjvScene, position: NDArray[np.float64], radius: float, alpha: float) -> None:
    for disc in range(_SHADE_DISCS):
        geom = scene.geoms[scene.ngeom]
        mujoco.mjv_initGeom(
            geom,
            mujoco.mjtGeom.mjGEOM_CYLINDER,
            np.array([radius * (0.6 + 0.16 * disc), 0.0001, 0.0]),
            # Above the target's rings and the marks, one disc over the next.
            np.array([position[0], position[1], 0.0014 + 0.0002 * (_SHADE_DISCS - disc)]),
            np.eye(3).ravel(),
            np.array([*_SHADE_COLOUR, alpha], np.float32),
        )
        geom.specular = geom.shininess = 0.0
        scene.ngeom += 1


class Window:
    """A window on the running world, in real time.

    Args:
        model: compiled model.
        data: the state that the window shows.
        control_hz: control steps per second; drawing waits so that the world does not run faster.

    Raises:
        MissingDependency: no window can be opened here.
    """

    def __init__(self, model: mujoco.MjModel, data: mujoco.MjData, control_hz: float) -> None:
        no_display = not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
        if sys.platform == "linux" and no_display:
            raise _no_window("DISPLAY is not set")
        try:
            import mujoco.viewer

            self._viewer = mujoco.viewer.launch_passive(model, data, show_left_ui=False, show_right_ui=False)
        except (ImportError, OSError, RuntimeError, mujoco.FatalError) as error:
            raise _no_window(error) from error
        self._period_s = 1.0 / control_hz
        self._next_s = time.monotonic()

    def draw(self) -> None:
        """Shows the present state, and waits until its time has come."""
        self._viewer.sync()
        time.sleep(max(0.0, self._next_s - time.monotonic()))
        self._next_s = max(self._next_s, time.monotonic() - self._period_s) + self._period_s

    def close(self) -> None:
        """Closes the window."""
        self._viewer.close()


def _no_window(why: object) -> MissingDependency:
    return MissingDependency(
        f"render_mode='human' opens a window, and that needs a display ({why}); write a film instead (--out "
        "FILE.mp4, or render_mode='rgb_array')"
    )
