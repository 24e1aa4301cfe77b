"""Observers of a rollout: video. They look, they do not touch."""

from __future__ import annotations

import importlib
import io
from fractions import Fraction
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from understudy.durable import make_folder, write_file
from understudy.errors import ConfigError, MissingDependency, PictureError, UnderstudyError
from understudy.rollout import Observer, Step
from understudy.spec import spec_of

_WATCHABLE_HZ = 25.0
_UNKNOWN_HZ = 25.0
_QUALITY = {"crf": "23", "preset": "veryfast"}


def can_render(env: gym.Env[Any, Any]) -> str | None:
    """Why the world can draw no picture here; None where it can. Resets the world and draws one to find out."""
    if env.render_mode != "rgb_array":
        return f"the world was built with render_mode={env.render_mode!r}; pictures need render_mode='rgb_array'"
    try:
        env.reset(seed=0)
        _picture(env)
    except Exception as error:  # whatever a world's drawing code raises is the reason asked for
        return str(error) or type(error).__name__
    return None


class Video(Observer):
    """Writes what `env.render()` shows into one MP4 (H.264, yuv420p, index first, so that any browser plays it).

    The file holds the episodes it sees, one after the other, in real time. It appears under its name when `close` is
    called or the `with` block ends, also after an interruption, whole or not at all, but not where a picture failed;
    before that it is in memory (a few hundred kilobytes for a minute of a small picture).

    Args:
        path: of the file; one that exists is replaced.
        every: steps from one picture to the next; about 25 pictures a second where not given.
        width: of the video in pixels; that of the first picture where not given. Odd sizes lose a column.
        height: the same, a row.
        fps: pictures a second; the world's control rate over `every`, real time, where not given.

    Raises:
        ConfigError: a number that is not positive.
    """

    def __init__(
        self,
        path: Path | str,
        *,
        every: int | None = None,
        width: int | None = None,
        height: int | None = None,
        fps: float | None = None,
    ) -> None:
        for name, value in (("every", every), ("width", width), ("height", height), ("fps", fps)):
            if value is not None and not value > 0:
                raise ConfigError(f"{name} of a video is {value}; it must be above 0")
        self.path = Path(path)
        self._film = io.BytesIO()  # no file: libav crashes where a disk is full
        self._every, self._fps = every, fps
        self._size = (width, height)
        self._container: Any = None
        self._stream: Any = None
        self._stride, self._frames = 1, 0

    def __enter__(self) -> Video:
        return self

    def __exit__(self, kind: object, error: object, traceback: object) -> None:
        if not isinstance(error, PictureError):
            self.close()

    def on_start(self, env: gym.Env[Any, Any], observation: NDArray[np.float32]) -> None:
        self._add(env)

    def on_step(self, env: gym.Env[Any, Any], step: Step) -> None:
        if (step.index + 1) % self._stride == 0:
            self._add(env)

    def close(self) -> None:
        """Finishes the file; closing twice does nothing, and without a picture there is no file.

        Raises:
            StorageError: the disk is full or failed.
        """
        if self._container is None:
            return
        container, self._container = self._container, None
        container.mux(self._stream.encode(None))
        container.close()
        make_folder(self.path.parent)
        write_file(self.path, self._film.getvalue())

    def _add(self, env: gym.Env[Any, Any]) -> None:
        picture = _picture(env)
        av = _pyav()
        if self._container is None:
            self._open(av, env, picture)
        frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
        try:
            frame = frame.reformat(self._stream.width, self._stream.height, "yuv420p")
            frame.pts, frame.time_base = self._frames, 1 / self._stream.codec_context.framerate
            self._container.mux(self._stream.encode(frame))
        except av.error.FFmpegError as error:
            size = f"{self._stream.width} x {self._stream.height}"
            raise PictureError(f"no video can be made of pictures of {size} pixels ({error.strerror})") from error
        self._frames += 1

    def _open(self, av: Any, env: gym.Env[Any, Any], picture: NDArray[np.uint8]) -> None:
        control_hz = spec_of(env).control_hz or _UNKNOWN_HZ
        self._stride = self._every or max(1, round(control_hz / _WATCHABLE_HZ))
        fps = self._fps or control_hz / self._stride
        height, width, _ = picture.shape
        # To put the index first, libav reads what it wrote, through a second file of the same content.
        self._container = av.open(
            self._film,
            "w",
            format="mp4",
            options={"movflags": "faststart"},
            io_open=lambda url, flags, options: io.BytesIO(self._film.getvalue()),
        )
        self._stream = self._container.add_stream("libx264", rate=Fraction(fps).limit_denominator(1000))
        # Half as many rows and columns of colour as of brightness: both sizes must be even.
        self._stream.width, self._stream.height = (
            max(2, (given or drawn) // 2 * 2) for given, drawn in zip(self._size, (width, height), strict=True)
        )
        self._stream.pix_fmt, self._stream.options = "yuv420p", _QUALITY


def _picture(env: gym.Env[Any, Any]) -> NDArray[np.uint8]:
    try:
        picture = np.asarray(env.render())
    except UnderstudyError:
        raise
    except Exception as error:  # whatever a world's drawing code raises
        raise PictureError(f"the world cannot be drawn: {str(error) or type(error).__name__}") from error
    if picture.ndim != 3 or picture.shape[2] != 3:
        raise ConfigError(
            f"the world drew {picture.shape or 'nothing'} instead of (height, width, 3); build it with "
            "render_mode='rgb_array'"
        )
    return np.ascontiguousarray(picture, np.uint8)


def _pyav() -> Any:
    try:
        return importlib.import_module("av")
    except ImportError as error:
        raise MissingDependency(f"videos need PyAV ({error}); pip install av") from error
