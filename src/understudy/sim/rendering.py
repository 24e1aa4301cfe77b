"""Pictures of MuJoCo worlds without a window. OpenGL is touched when the first picture is asked for, never before."""

from __future__ import annotations

import atexit
import contextlib
import functools
import importlib
import os
import sys
import warnings
import weakref
from collections.abc import Callable
from typing import Any

import mujoco
import numpy as np
from numpy.typing import NDArray

from understudy.errors import ConfigError, MissingDependency

_MAXIMUM_GEOMS = 10_000
_LARGEST_PICTURE = 4096


class Camera:
    """Draws one camera's pictures. Without shadows, reflections and multisampling, which cost 9 / 10 of the time.

    Args:
        model: compiled model; its offscreen buffer is made as large as the picture.
        width: in pixels.
        height: in pixels.
        camera: name of a camera of the model, or a free `mujoco.MjvCamera`.
        decorate: called with the scene and the data before each picture, to add shapes that are no part of physics.

    Raises:
        ConfigError: the model has no camera of that name, or a size is no whole number of pixels from 1 to 4096.
        MissingDependency: this machine has no OpenGL library that draws without a window.
    """

    def __init__(
        self,
        model: mujoco.MjModel,
        width: int,
        height: int,
        camera: str | mujoco.MjvCamera,
        decorate: Callable[[mujoco.MjvScene, mujoco.MjData], None] | None = None,
    ) -> None:
        for name, size in (("width", width), ("height", height)):
            if type(size) is not int or not 1 <= size <= _LARGEST_PICTURE:
                raise ConfigError(f"{name} is {size!r}; a picture has 1 to {_LARGEST_PICTURE} whole pixels")
        self._model, self._decorate = model, decorate
        self._camera = _named(model, camera) if isinstance(camera, str) else camera
        self._scene = mujoco.MjvScene(model, _MAXIMUM_GEOMS)
        self._option, self._perturbation = mujoco.MjvOption(), mujoco.MjvPerturb()
        self._rectangle = mujoco.MjrRect(0, 0, width, height)
        draw_fast(model)
        buffer = model.vis.global_
        buffer.offwidth, buffer.offheight = max(buffer.offwidth, width), max(buffer.offheight, height)
        try:
            self._window = _headless_context(width, height)
            self._window.make_current()
            self._context = mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_150)
        # Each of MuJoCo's OpenGL bindings says in another way that its library is missing.
        except (ImportError, AttributeError, OSError, RuntimeError, mujoco.FatalError) as error:
            raise _no_opengl(error) from error
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN, self._context)
        # Python frees the context after EGL has ended, and complains, where the owner forgot to close.
        self._close_at_exit = functools.partial(_close_if_alive, weakref.ref(self))
        atexit.register(self._close_at_exit)

    def frame(self, data: mujoco.MjData) -> NDArray[np.uint8]:
        """The world as the camera sees it, (height, width, 3)."""
        self._window.make_current()
        mujoco.mjv_updateScene(
            self._model,
            data,
            self._option,
            self._perturbation,
            self._camera,
            mujoco.mjtCatBit.mjCAT_ALL,
            self._scene,
        )
        self._scene.flags[mujoco.mjtRndFlag.mjRND_SHADOW] = 0
        self._scene.flags[mujoco.mjtRndFlag.mjRND_REFLECTION] = 0
        if self._decorate is not None:
            self._decorate(self._scene, data)
        picture = np.empty((self._rectangle.height, self._rectangle.width, 3), np.uint8)
        mujoco.mjr_render(self._rectangle, self._scene, self._context)
        mujoco.mjr_readPixels(picture, None, self._rectangle, self._context)
        return picture[::-1].copy()  # OpenGL's first row is the lowest

    def close(self) -> None:
        """Frees the OpenGL context; closing twice does nothing."""
        atexit.unregister(self._close_at_exit)
        self._window.make_current()
        self._context.free()
        self._window.free()


def draw_fast(model: mujoco.MjModel) -> None:
    """Turns off what makes software rendering slow: shadows, reflections and multisampling.

    It must come before the first picture. Physics does not see these settings.
    """
    model.vis.quality.offsamples = 0
    model.vis.quality.shadowsize = 0
    model.mat_reflectance[:] = 0


def choose_backend() -> None:
    """Has everybody's MuJoCo draw through EGL (MUJOCO_GL=egl) where nobody chose and there is no display.

    Where EGL is missing, the variable stays unset: with it, importing MuJoCo would fail in every child process.
    """
    if _backend() == "egl" and not os.environ.get("MUJOCO_GL"):
        with contextlib.suppress(ImportError, AttributeError, OSError):
            context = importlib.import_module("mujoco.egl").GLContext
            # mujoco.Renderer made its choice when MuJoCo was imported, without the variable.
            importlib.import_module("mujoco.rendering.classic.gl_context").GLContext = context  # type: ignore[attr-defined]
            os.environ["MUJOCO_GL"] = "egl"


def _backend() -> str:
    chosen = os.environ.get("MUJOCO_GL", "").strip().lower()
    if chosen in ("egl", "osmesa", "glfw"):
        return chosen
    return "glfw" if sys.platform != "linux" or _opens_windows() else "egl"


@functools.cache
def _opens_windows() -> bool:
    """Whether GLFW starts here; a display that leads nowhere would take the process down with the first context."""
    if not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        return False
    with contextlib.suppress(ImportError, AttributeError, OSError), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it says by a warning what keeps it
        return bool(importlib.import_module("glfw").init())
    return False


def _headless_context(width: int, height: int) -> Any:
    if sys.platform == "darwin":
        return importlib.import_module("mujoco.cgl").GLContext(width, height)
    backend = _backend()
    if backend == "glfw" and sys.platform == "linux" and not _opens_windows():
        raise RuntimeError("MUJOCO_GL is glfw, and no display answers; unset it, or take egl")
    return importlib.import_module(f"mujoco.{backend}").GLContext(width, height)


def _named(model: mujoco.MjModel, name: str) -> mujoco.MjvCamera:
    names = [model.camera(index).name for index in range(model.ncam)]
    if name not in names:
        raise ConfigError(f"camera is {name!r}; this world has {', '.join(names) or 'none'}")
    camera = mujoco.MjvCamera()
    camera.type, camera.fixedcamid = mujoco.mjtCamera.mjCAMERA_FIXED, names.index(name)
    return camera


def _no_opengl(error: BaseException) -> MissingDependency:
    return MissingDependency(
        f"no picture without OpenGL ({type(error).__name__}: {error}); on Debian or Ubuntu: "
        "apt-get install libegl1 libgl1-mesa-dri"
    )


def _close_if_alive(reference: weakref.ref[Camera]) -> None:
    camera = reference()
    if camera is not None:
        camera.close()
