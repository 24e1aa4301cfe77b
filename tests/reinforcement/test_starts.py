from dataclasses import replace

import gymnasium as gym
import numpy as np
import pytest
from tiny_worlds import Says, tiny

from tests.reinforcement.reach import ReachWorld, demonstrations
from understudy.dataset import Dataset
from understudy.episode import FAILURE
from understudy.errors import ConfigError
from understudy.evaluate import EVALUATION_SEED
from understudy.reinforcement.starts import DemoStarts, start_seed
from understudy.rollout import rollout
from understudy.worlds import KeptOpen


@pytest.fixture(scope="module")
def demos(tmp_path_factory):
    return demonstrations(tmp_path_factory.mktemp("demos") / "data")


def test_training_begins_from_each_seed_below_those_of_evaluations_once_before_any_comes_again():
    seeds = [start_seed(7, index) for index in range(2 * EVALUATION_SEED)]
    assert sorted(seeds[:EVALUATION_SEED]) == sorted(seeds[EVALUATION_SEED:]) == list(range(EVALUATION_SEED))
    assert seeds[:EVALUATION_SEED] != seeds[EVALUATION_SEED:]
    assert [start_seed(8, index) for index in range(9)] != seeds[:9]


def test_the_states_are_those_of_the_demonstrations_up_to_success(demos):
    starts = DemoStarts(demos, every=2)
    assert starts.prepare(ReachWorld) == demos.steps
    for episode, states in zip(demos, starts._states, strict=True):
        ends = int(np.argmax(episode.succeeded)) if episode.succeeded.any() else len(episode)
        kept = [state["position"] for state in states]
        np.testing.assert_allclose(kept, episode.observations[: ends + 1 : 2][: len(kept)], atol=1e-6)
        assert len(kept) == len(range(0, ends + 1, 2)) or not episode.succeeded.any()


def test_an_episode_begins_where_it_is_told(demos):
    starts = DemoStarts(demos, share=1.0)
    starts.prepare(ReachWorld)
    options = starts.options_for((1, 2), 0.0)
    episode = rollout(ReachWorld(), Says(np.zeros(2, np.float32)), seed=0, options=options)
    np.testing.assert_allclose(episode.observations[0], options["initial_state"]["position"], atol=1e-6)
    np.testing.assert_array_equal(episode.initial_state["position"], options["initial_state"]["position"])


def test_the_starts_move_back_along_the_demonstrations(demos):
    starts = DemoStarts(demos, share=1.0, until=0.8, every=1)
    starts.prepare(ReachWorld)

    def distance(progress):
        drawn = [starts.options_for((index,), progress)["initial_state"]["position"] for index in range(200)]
        return np.linalg.norm(drawn, axis=1).mean()

    distances = [distance(progress) for progress in (0.0, 0.2, 0.4, 0.6, 0.79)]
    assert distances == sorted(distances)
    assert distances[0] < 0.5
    assert distances[-1] > 0.9


@pytest.mark.parametrize("order", ["uniform", "backward"])
def test_in_the_end_every_episode_begins_where_the_world_says(demos, order):
    starts = DemoStarts(demos, share=0.5, until=0.5, order=order)
    starts.prepare(ReachWorld)
    drawn = [starts.options_for((index,), 0.0) for index in range(400)]
    assert 0.4 < np.mean([options is not None for options in drawn]) < 0.6
    assert [starts.options_for((index,), 0.5) for index in range(50)] == [None] * 50
    assert str(starts.options_for((3, 4), 0.1)) == str(starts.options_for((3, 4), 0.1))


def test_a_world_that_cannot_give_its_state_says_so(demos):
    with pytest.raises(ConfigError, match=r"TinyWorld has no method state\(\)"):
        DemoStarts(demos).prepare(tiny())

    class Stateless(ReachWorld):
        state = None

    with pytest.raises(ConfigError, match=r"Stateless has no method state\(\)"):
        DemoStarts(demos).prepare(Stateless)


def test_demonstrations_that_cannot_be_replayed_are_refused(demos, tmp_path):
    def of(name, **changes):
        dataset = Dataset.create(tmp_path / name, demos.spec)
        for episode in demos:
            dataset.append(replace(episode, **changes))
        return DemoStarts(dataset)

    with pytest.raises(ConfigError, match="tells neither the seed nor the state of its start"):
        of("seedless", seed=-1).prepare(ReachWorld)
    with pytest.raises(ConfigError, match="all demonstrations failed, so no episode can begin inside one"):
        of("failed", success=FAILURE).prepare(ReachWorld)


def test_a_replay_goes_beyond_the_limit_of_a_world_that_is_borrowed(demos):
    own, borrowed = DemoStarts(demos, every=1), DemoStarts(demos, every=1)
    limited = gym.wrappers.TimeLimit(ReachWorld(), 3)
    assert own.prepare(lambda: limited) == borrowed.prepare(lambda: KeptOpen(limited)) == demos.steps


def test_a_replay_goes_through_the_wrappers_of_the_world(demos):
    """Here they halve what is executed, so the replays end elsewhere."""
    own, halved = DemoStarts(demos, every=1), DemoStarts(demos, every=1)
    own.prepare(ReachWorld)
    halved.prepare(lambda: gym.wrappers.TransformAction(ReachWorld(), lambda action: action / 2, None))
    ends = [np.linalg.norm(starts._states[0][-1]["position"]) for starts in (own, halved)]
    assert ends[0] < ends[1] - 0.1


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        ({"share": 1.2}, "share is 1.2; accepted: 0 to 1"),
        ({"until": 0}, "until is 0; accepted: 1e-06 to 1"),
        ({"every": 0}, "every is 0; accepted: 1 or more"),
        ({"order": "forward"}, "order is 'forward'; accepted: uniform, backward"),
    ],
)
def test_values_that_cannot_work_are_refused(demos, bad, said):
    with pytest.raises(ConfigError) as raised:
        DemoStarts(demos, **bad)
    assert str(raised.value) == said
