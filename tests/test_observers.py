import numpy as np
import pytest
from tiny_worlds import Noise, Says, TinyWorld

from understudy.errors import ConfigError, MissingDependency, WorldError
from understudy.observers import Video, can_render
from understudy.playback import Show, film, film_each
from understudy.rollout import rollout
from understudy.worlds import make_env

av = pytest.importorskip("av")
DRAWN = {"render_mode": "rgb_array"}


def read(path):
    with av.open(str(path)) as file:
        stream = file.streams.video[0]
        frames = [frame.to_ndarray(format="rgb24") for frame in file.decode(stream)]
        return stream.codec_context.name, stream.codec_context.pix_fmt, float(stream.average_rate), frames


def test_a_video_holds_every_picture_in_real_time_for_any_browser(tmp_path):
    env = TinyWorld(length=5, render_mode="rgb_array")
    with Video(tmp_path / "new" / "run.mp4", every=1) as video:
        for seed in range(2):
            rollout(env, Noise(), seed=seed, observers=[video])
    codec, layout, rate, frames = read(tmp_path / "new" / "run.mp4")
    assert (codec, layout, rate) == ("h264", "yuv420p", 50.0)
    assert len(frames) == 2 * (5 + 1), "the start and every step of both episodes"
    assert frames[0].shape == (46, 62, 3), "yuv420p has even sizes only"
    shades = [frame.mean() for frame in frames[:6]]
    np.testing.assert_allclose(np.diff(shades), 50, atol=6)
    content = (tmp_path / "new" / "run.mp4").read_bytes()
    assert content.find(b"moov") < content.find(b"mdat"), "the index comes first, so it plays while it loads"
    assert list((tmp_path / "new").iterdir()) == [tmp_path / "new" / "run.mp4"]


def test_a_video_shows_about_25_pictures_a_second_unless_told_otherwise(tmp_path):
    env = TinyWorld(length=8, render_mode="rgb_array")
    for options, rate, count, shape in (
        ({}, 25.0, 1 + 4, (46, 62, 3)),
        ({"every": 4, "fps": 10.0, "width": 64, "height": 32}, 10.0, 1 + 2, (32, 64, 3)),
    ):
        with Video(tmp_path / "run.mp4", **options) as video:
            rollout(env, Noise(), seed=0, observers=[video])
        _, _, measured, frames = read(tmp_path / "run.mp4")
        assert (measured, len(frames), frames[0].shape) == (rate, count, shape)


def test_films_of_a_report_have_fewer_pictures_and_end_soon_after_success(tmp_path):
    """Control steps at 50 Hz: a picture at every 5th, and the last one 10 steps after the success at step 20."""
    built = []

    def world():
        built.append(TinyWorld(length=100, infos=[{"success": step == 20} for step in range(1, 101)], **DRAWN))
        return built[-1]

    shows = [(Show(Noise(), int(whole), whole=whole), tmp_path / f"{whole}.mp4") for whole in (False, True)]
    assert film_each(world, shows, pictures_hz=10.0, after_success_s=0.2) is None
    assert len(built) == 1
    for (_, path), steps in zip(shows, (30, 100), strict=True):
        _, _, rate, frames = read(path)
        assert (rate, len(frames)) == (10.0, 1 + steps // 5)


def test_an_interrupted_film_of_a_report_is_not_kept(tmp_path):
    class Impatient(Noise):
        def act(self, observation):
            raise KeyboardInterrupt

    shows = [(Show(Noise(), 0), tmp_path / "whole.mp4"), (Show(Impatient(), 1), tmp_path / "cut.mp4")]
    with pytest.raises(KeyboardInterrupt):
        film_each(lambda: TinyWorld(length=9, **DRAWN), shows, pictures_hz=10.0, after_success_s=0.2)
    assert [path.name for path in tmp_path.iterdir()] == ["whole.mp4"]


class Fading(TinyWorld):
    """Draws a few pictures, and then no more."""

    def __init__(self, pictures, **options):
        super().__init__(**options)
        self.left = pictures

    def render(self):
        self.left -= 1
        if self.left < 0:
            raise RuntimeError("the screen is gone")
        return super().render()


def test_a_picture_that_fails_in_the_middle_is_a_reason_and_leaves_no_film(tmp_path):
    world = lambda: Fading(4, length=9, **DRAWN)  # noqa: E731
    shows = [Show(Noise(), 0)]
    assert film(world, shows, tmp_path / "film.mp4") == "the world cannot be drawn: the screen is gone"
    each = [(show, tmp_path / "each.mp4") for show in shows]
    assert "the screen is gone" in film_each(world, each, pictures_hz=50.0, after_success_s=0.2)
    assert not list(tmp_path.iterdir())


def test_a_picture_of_one_pixel_is_filmed_or_a_reason(tmp_path):
    class Speck(TinyWorld):
        def render(self):
            return np.full((1, 1, 3), 128, np.uint8)

    why_not = film(lambda: Speck(length=9, **DRAWN), [Show(Noise(), 0)], tmp_path / "film.mp4")
    assert (why_not is None) == (tmp_path / "film.mp4").exists()
    assert why_not is None or "1 pixels" in why_not or "2 x 2" in why_not


def test_a_world_that_draws_nothing_is_a_reason_and_no_error(tmp_path):
    shows = [(Show(Noise(), 0), tmp_path / "0.mp4")]
    assert "render_mode='rgb_array'" in film_each(TinyWorld, shows, pictures_hz=10.0, after_success_s=0.2)
    assert not list(tmp_path.iterdir())


def test_an_interrupted_video_can_be_watched(tmp_path):
    env = TinyWorld(length=9, fault="nan reward", at=3, render_mode="rgb_array")
    with pytest.raises(WorldError), Video(tmp_path / "run.mp4", every=1) as video:
        rollout(env, Noise(), seed=0, observers=[video])
    assert len(read(tmp_path / "run.mp4")[3]) == 3


def test_a_video_does_not_change_the_episode(tmp_path):
    with Video(tmp_path / "run.mp4") as video:
        watched = rollout(TinyWorld(render_mode="rgb_array"), Noise(), seed=0, observers=[video])
    alone = rollout(TinyWorld(), Noise(), seed=0)
    assert np.array_equal(watched.observations, alone.observations)


def test_without_an_episode_there_is_no_file(tmp_path):
    Video(tmp_path / "run.mp4").close()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("option", ["every", "width", "height", "fps"])
def test_a_number_that_is_not_positive_is_refused(tmp_path, option):
    with pytest.raises(ConfigError, match=f"{option} of a video is 0"):
        Video(tmp_path / "run.mp4", **{option: 0})


def test_why_a_world_draws_nothing_is_said():
    assert can_render(TinyWorld(render_mode="rgb_array")) is None
    assert "render_mode='rgb_array'" in can_render(TinyWorld())

    class Blind(TinyWorld):
        def render(self):
            raise MissingDependency("no OpenGL here")

    assert can_render(Blind(render_mode="rgb_array")) == "no OpenGL here"


def test_a_world_built_without_pictures_cannot_be_filmed(tmp_path):
    with Video(tmp_path / "run.mp4") as video, pytest.raises(ConfigError, match="render_mode='rgb_array'"):
        rollout(TinyWorld(), Noise(), seed=0, observers=[video])


@pytest.mark.parametrize("world", ["understudy/AdroitDoor-v0", "FetchReach-v4"])
def test_mujoco_worlds_can_be_filmed(tmp_path, world):
    env = make_env(world, render_mode="rgb_array")
    reason = can_render(env)
    if reason:
        pytest.skip(reason)
    with Video(tmp_path / "run.mp4") as video:
        rollout(env, Says(np.zeros(env.action_space.shape, np.float32)), seed=0, max_steps=4, observers=[video])
    env.close()
    _, _, rate, frames = read(tmp_path / "run.mp4")
    assert rate == 25.0
    assert frames[0].std() > 10
