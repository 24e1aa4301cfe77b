import hashlib
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.datasets import SPEC, point_dataset, point_episode
from understudy.checkpoint import load
from understudy.dataset import Dataset
from understudy.episode import Episode
from understudy.errors import ConfigError, DataError, SpecMismatch, TrainingDiverged
from understudy.policies import Batch, Ensemble, FeedForward, FeedForwardConfig
from understudy.recipe import TrainConfig
from understudy.runs import read_metrics
from understudy.spec import Channel, Spec
from understudy.trainer import Batches, choose_device, train
from understudy.windows import Windows

SHAPE = FeedForwardConfig(hidden=(32, 32))
QUICK = TrainConfig(steps=60, batch_size=16, measure_every=20)
WINS = replace(QUICK, failures=False)


def digest(policy):
    return hashlib.sha256(b"".join(array.tobytes() for _, array in sorted(policy.arrays().items()))).hexdigest()


@pytest.fixture
def demos(tmp_path):
    return point_dataset(tmp_path / "demos", episodes=20)


def new_policy(dataset, kind="feedforward"):
    one = FeedForward.for_data(dataset, SHAPE)
    return Ensemble.of(one, 2) if kind == "ensemble" else one


@pytest.mark.parametrize("head", ["absolute", "squared", "gaussian", "mixture"])
def test_every_head_solves_a_small_task(demos, head):
    policy = FeedForward.for_data(demos, replace(SHAPE, head=head))
    trained = train(policy, demos, TrainConfig(steps=600, batch_size=64, observation_noise=0.0))
    for position in ([0.5, -0.5], [-0.3, 0.2]):
        action = trained.predict(np.array([[*position, 5.0]], np.float32))[0]
        np.testing.assert_allclose(action, [-value for value in position], atol=0.05)


def test_training_leaves_the_policy_it_is_given_untouched(demos):
    policy = new_policy(demos)
    before = digest(policy)
    trained = train(policy, demos, QUICK)
    assert digest(policy) == before != digest(trained)
    assert policy.statistics is None


@pytest.mark.parametrize("kind", ["feedforward", "ensemble"])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_same_seed_gives_the_same_bytes(demos, kind, seed):
    config = replace(QUICK, seed=seed)
    assert digest(train(new_policy(demos, kind), demos, config)) == digest(
        train(new_policy(demos, kind), demos, config)
    )


def test_another_seed_gives_other_bytes(demos):
    policy = new_policy(demos)
    assert digest(train(policy, demos, QUICK)) != digest(train(policy, demos, replace(QUICK, seed=1)))


@pytest.mark.parametrize("keep", ["last", "best"])
def test_held_out_data_change_no_weight_of_any_step(tmp_path, keep):
    """Promise R8: the same training with every held-out number changed has the same weights at every checkpoint."""
    states = []
    for name, factor in (("one", 1.0), ("two", 0.1)):
        folder = tmp_path / name
        plain = point_dataset(folder / "plain", episodes=10)
        held_out = {row.seed for row in plain.split(0.2, seed=QUICK.seed)[1].rows}
        with Dataset.create(folder / "data", SPEC) as dataset:
            for seed in range(10):
                episode = point_episode(seed)
                if seed in held_out:
                    episode = replace(episode, observations=episode.observations * factor, actions=-episode.actions)
                dataset.append(episode)
        dataset = Dataset.open(folder / "data")
        weights = []
        run = folder / "run"

        def look(log, run=run, weights=weights):
            # The checkpoint holds the weights of this step, whichever step is kept in the end.
            from understudy.checkpoint import load_state

            tensors = load_state(run / "checkpoints" / "latest.safetensors").tensors
            weights.append({name: value for name, value in tensors.items() if not name.endswith("best")})

        config = replace(QUICK, held_out=0.2, keep=keep)
        train(FeedForward.for_data(dataset, SHAPE), dataset, config, run=run, on_log=look)
        states.append(weights)
    assert len(states[0]) == 3
    for one, two in zip(*states, strict=True):
        assert one.keys() == two.keys()
        for name in one:
            assert torch.equal(one[name], two[name]), name


def test_the_scaling_is_that_of_the_training_episodes_alone(demos):
    trained = train(new_policy(demos), demos, QUICK)
    training, _ = demos.split(QUICK.held_out, seed=QUICK.seed)
    rows = np.concatenate([episode.observations[:-1] for episode in training])
    np.testing.assert_array_equal(trained.statistics[0].minimum, rows.min(0))


def test_a_trained_policy_keeps_its_scaling_when_it_is_trained_again(demos, tmp_path):
    first = train(new_policy(demos), demos, QUICK)
    more = point_dataset(tmp_path / "more", episodes=3, steps=5)
    again = train(first, more, QUICK)
    np.testing.assert_array_equal(again.statistics[0].mean, first.statistics[0].mean)


def test_best_keeps_the_step_with_the_lowest_held_out_loss(demos, tmp_path):
    # A learning rate far too high: the loss rises after the first measurement, so the best step is not the last.
    config = replace(QUICK, learning_rate=0.5, ema=0.0, held_out=0.2, keep="best", measure_every=5)
    best = train(new_policy(demos), demos, config, run=tmp_path / "best")
    last = train(new_policy(demos), demos, replace(config, keep="last"), run=tmp_path / "last")
    losses = [row["held_out_loss"] for row in read_metrics(tmp_path / "best")]
    assert losses.index(min(losses)) < len(losses) - 1
    assert digest(best) != digest(last)


def test_a_training_that_diverges_says_so_and_leaves_no_policy(demos, tmp_path):
    config = replace(QUICK, learning_rate=1e30, warmup=0.0)
    with pytest.raises(TrainingDiverged, match="learning_rate"):
        train(new_policy(demos), demos, config, run=tmp_path / "run")
    assert not (tmp_path / "run" / "policy").exists()


def test_a_row_torn_before_the_first_checkpoint_does_not_survive_a_resume(demos, tmp_path):
    train(new_policy(demos), demos, QUICK, run=tmp_path / "whole")
    run = tmp_path / "torn"
    run.mkdir()
    (run / "config.json").write_bytes((tmp_path / "whole" / "config.json").read_bytes())
    (run / "metrics.jsonl").write_text('{"step": 20, "lo')
    train(new_policy(demos), demos, QUICK, run=run, resume=True)
    assert [row["step"] for row in read_metrics(run)] == [20, 40, 60]


def test_nothing_held_out_means_nothing_measured(demos):
    logs = []
    train(new_policy(demos), demos, replace(QUICK, held_out=0.0), on_log=logs.append)
    assert all(np.isnan(log.held_out_loss) for log in logs)


def test_held_out_episodes_that_the_policy_drove_unasked_measure_nothing(tmp_path):
    held_out = {row.seed for row in point_dataset(tmp_path / "plain").split(QUICK.held_out, seed=QUICK.seed)[1].rows}
    with Dataset.create(tmp_path / "data", SPEC) as dataset:
        for seed in range(10):
            dataset.append(point_episode(seed, driver=np.full(20, seed not in held_out)))
    logs = []
    train(new_policy(dataset), dataset, QUICK, on_log=logs.append)
    assert len(logs) == 3
    assert all(np.isnan(log.held_out_loss) for log in logs)


def mixed(folder):
    """Four episodes that succeeded, two that failed, one that nobody judged."""
    with Dataset.create(folder, SPEC) as dataset:
        for seed, success in enumerate((1, 0, 1, 1, 0, 1, -1)):
            dataset.append(replace(point_episode(seed), success=success))
    return dataset


def test_episodes_that_failed_can_be_left_out(tmp_path):
    dataset = mixed(tmp_path / "data")
    assert [row.success for row in dataset.without_failures().rows] == [1, 1, 1, 1, -1]
    without = digest(train(new_policy(dataset), dataset, WINS))
    assert without == digest(train(new_policy(dataset), dataset.without_failures(), QUICK))
    assert without != digest(train(new_policy(dataset), dataset, QUICK))


def test_where_every_episode_failed_the_training_says_so(tmp_path):
    lost = mixed(tmp_path / "data").select([1, 4])
    with pytest.raises(DataError, match="all 2 episodes failed; record some that succeed"):
        train(new_policy(lost), lost, WINS)
    train(new_policy(lost), lost, QUICK)


def test_every_window_is_seen_once_in_an_epoch():
    batches = Batches(50, 10, seed=3)
    first = torch.cat([batches.indices(step) for step in range(5)])
    second = torch.cat([batches.indices(step) for step in range(5, 10)])
    assert sorted(first.tolist()) == sorted(second.tolist()) == list(range(50))
    assert first.tolist() != second.tolist()


def test_each_share_of_a_batch_has_an_order_of_its_own():
    batches = Batches(50, 10, seed=3, shares=2)
    both = torch.stack([batches.indices(step).view(2, 10) for step in range(5)], dim=1).flatten(1)
    assert sorted(both[0].tolist()) == sorted(both[1].tolist()) == list(range(50))
    assert both[0].tolist() != both[1].tolist()


def test_a_member_of_an_ensemble_learns_as_if_it_were_alone(demos):
    """Its gradient is that of its own share of the batch, whatever the others do."""
    ensemble = Ensemble.of(FeedForward.for_data(demos, SHAPE), 2)
    ensemble.fit_scaling(*Windows(demos, 1, 1).statistics())
    windows = Windows(demos, 1, 1)
    batch = windows.batch(torch.arange(20))
    ensemble.loss(batch).backward()
    for member, rows in zip(ensemble.members, (slice(0, 10), slice(10, 20)), strict=True):
        together = [parameter.grad.clone() for parameter in member.parameters()]
        member.zero_grad()
        member.loss(Batch(*(column[rows] for column in batch))).backward()
        for one, parameter in zip(together, member.parameters(), strict=True):
            torch.testing.assert_close(one, parameter.grad)


def test_a_batch_larger_than_the_data_is_the_data():
    assert Batches(3, 256, seed=0).indices(7).tolist() in [
        [a, b, c] for a in range(3) for b in range(3) for c in range(3)
    ]


def test_other_channels_are_refused_by_name(demos, tmp_path):
    other = Spec("x", 10.0, (Channel("x", "m"), Channel("z", "m"), Channel("dead", "1")), SPEC.actions)
    with pytest.raises(SpecMismatch, match="'y' against 'z'"):
        train(new_policy(demos), point_dataset(tmp_path / "other", spec=other), QUICK)


def test_a_device_that_is_not_there_is_refused():
    for name in ("cuda:99", "tpu", "meta"):
        with pytest.raises(ConfigError, match="device"):
            choose_device(name)
    assert choose_device("cpu").type == "cpu"


@pytest.mark.parametrize(
    "bad", [{"steps": 0}, {"learning_rate": 0.0}, {"ema": 1.0}, {"keep": "first"}, {"held_out": 1.0}, {"seed": -1}]
)
def test_a_recipe_that_cannot_be_is_refused(bad):
    with pytest.raises(ConfigError, match=next(iter(bad))):
        TrainConfig(**bad)


def test_a_run_is_never_overwritten_and_resumes_only_as_it_was_begun(demos, tmp_path):
    train(new_policy(demos), demos, QUICK, run=tmp_path / "run")
    with pytest.raises(ConfigError, match="--resume"):
        train(new_policy(demos), demos, QUICK, run=tmp_path / "run")
    with pytest.raises(ConfigError, match="train"):
        train(new_policy(demos), demos, replace(QUICK, steps=70), run=tmp_path / "run", resume=True)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("precious")
    with pytest.raises(ConfigError, match="not empty"):
        train(new_policy(demos), demos, QUICK, run=tmp_path / "mine", resume=True)
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "precious"


_CHILD = """
import sys
from understudy.checkpoint import load
from understudy.dataset import Dataset
from understudy.policies import FeedForward, FeedForwardConfig
from understudy.recipe import TrainConfig
from understudy.trainer import train
data, out = sys.argv[1:3]
dataset = Dataset.open(data)
policy = FeedForward.for_data(dataset, FeedForwardConfig(hidden=(32, 32)))
print("ready", flush=True)
train(policy, dataset, TrainConfig(steps=400, batch_size=16, measure_every=10), run=out,
      on_log=lambda log: print(log.step, flush=True))
"""


def _killed_training(demos: Dataset, run: Path, generator: random.Random) -> int:
    """Starts a training in a child and kills it at a random moment; returns the last step it reported."""
    child = subprocess.Popen(
        [sys.executable, "-c", _CHILD, str(demos.path), str(run)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[1],
    )
    with child:
        assert child.stdout.readline() == "ready\n"
        # The moment is drawn as a step, so that a slow machine kills as early as a fast one. A row of the metrics and
        # a checkpoint are saved before a step is reported: a fifth of the kills aim at the next save.
        last, target = 0, generator.randrange(0, 400, 10)
        while last < target:
            last = int(child.stdout.readline())
        time.sleep(generator.uniform(0, 0.02) if generator.random() < 0.8 else generator.uniform(0.004, 0.008))
        os.kill(child.pid, signal.SIGKILL)
    return last


def test_a_held_out_episode_that_ends_before_the_lead_is_not_measured_on(tmp_path):
    demos = point_dataset(tmp_path / "demos", episodes=9)
    demos.append(Episode(demos[0].observations[:3], demos[0].actions[:2]))
    for seed in range(30):
        if demos.split(0.1, seed=seed)[1].rows[0].length == 2:
            break
    config = TrainConfig(steps=20, measure_every=10, lead=3, seed=seed)
    logs = []
    train(FeedForward.for_data(demos, SHAPE), demos, config, on_log=logs.append)
    assert np.isnan([log.held_out_loss for log in logs]).all()


def test_two_trainings_do_not_share_a_run(tmp_path):
    demos, config = point_dataset(tmp_path / "demos", episodes=4), TrainConfig(steps=20, measure_every=10)
    policy, messages = FeedForward.for_data(demos, SHAPE), []

    def another(log):
        with pytest.raises(ConfigError, match=r"another job works in .*run; wait for it or end it") as refused:
            train(policy, demos, config, run=tmp_path / "run", resume=True)
        messages.append(str(refused.value))

    train(policy, demos, config, run=tmp_path / "run", on_log=another)
    assert len(messages) == 2
    train(policy, demos, config, run=tmp_path / "run", resume=True)


@pytest.mark.parametrize("kills", [3, pytest.param(100, marks=pytest.mark.full)])
def test_a_killed_training_resumes_to_the_same_bytes(tmp_path, kills):
    """Promise R2: a run that is killed anywhere and resumed ends with the weights of one that is not."""
    demos = point_dataset(tmp_path / "demos", episodes=20)
    config = TrainConfig(steps=400, batch_size=16, measure_every=10)
    expected = digest(train(FeedForward.for_data(demos, SHAPE), demos, config, run=tmp_path / "whole"))
    generator = random.Random(0)
    unfinished = 0
    for kill in range(kills):
        run = tmp_path / f"killed-{kill}"
        _killed_training(demos, run, generator)
        unfinished += not (run / "policy").exists()
        resumed = train(FeedForward.for_data(demos, SHAPE), demos, config, run=run, resume=True)
        assert digest(resumed) == expected
        assert digest(load(run)) == expected
        assert [row["step"] for row in read_metrics(run)] == list(range(10, 401, 10))
        assert (run / "config.json").read_bytes() == (tmp_path / "whole" / "config.json").read_bytes()
    assert unfinished > kills * 0.6


def test_a_state_that_is_replaced_is_the_old_one_or_the_new_one_at_every_system_call(tmp_path, monkeypatch):
    """Promise R3: whatever call of a save is the last one that happens, `latest` loads."""
    from understudy import durable
    from understudy.checkpoint import TrainingState, load_state, save_state

    path = tmp_path / "latest.safetensors"
    old = TrainingState(1, 0, 0.5, {"w": torch.zeros(100)})
    new = TrainingState(2, 2, 0.25, {"w": torch.ones(100)})

    class PowerCut(BaseException):
        pass

    calls = ("_os_write", "_os_fsync", "_os_rename")
    originals = {name: getattr(durable, name) for name in calls}
    for survivors in range(20):
        for name in calls:
            monkeypatch.setattr(durable, name, originals[name])
        save_state(path, old)
        left = [survivors]

        def failing(original, left=left):
            def call(*arguments):
                if left[0] == 0:
                    raise PowerCut
                left[0] -= 1
                return original(*arguments)

            return call

        for name in calls:
            monkeypatch.setattr(durable, name, failing(originals[name]))
        try:
            save_state(path, new)
        except PowerCut:
            assert load_state(path).step in (1, 2)
        else:
            assert load_state(path).step == 2
            assert survivors >= 4  # write, fsync, rename, fsync of the folder
            break
    else:
        raise AssertionError("a save never came to its end")


def test_a_loss_that_nothing_is_held_out_for_is_not_told(demos):
    told = []
    for held_out in (0.0, 0.2):
        config = TrainConfig(steps=20, measure_every=20, held_out=held_out, keep="last")
        train(new_policy(demos), demos, config, on_log=lambda log: told.append(log.losses))
    assert told[0].startswith("loss ")
    assert "held out" not in told[0]
    assert ", held out " in told[1]


def test_a_training_does_not_go_on_from_another_trained_policy(demos, tmp_path):
    """A trained policy keeps its scaling, so weights of one and the scaling of another would make neither."""
    first, other = (train(FeedForward(SPEC, SHAPE).initialized(seed), demos, QUICK) for seed in (0, 1))
    train(first, demos, QUICK, run=tmp_path / "run")
    with pytest.raises(ConfigError, match="start_fingerprint"):
        train(other, demos, QUICK, run=tmp_path / "run", resume=True)
    train(first, demos, QUICK, run=tmp_path / "run", resume=True)


def test_what_is_trained_acts_by_its_mean(demos):
    policy = FeedForward(SPEC, replace(SHAPE, head="gaussian")).initialized(0)
    policy.acts = "sampled"
    assert train(policy, demos, QUICK).acts == "mean"


@pytest.mark.parametrize("kind", ["link", "huge"])
def test_a_resumed_run_reads_plain_files_of_a_bounded_size(demos, tmp_path, kind):
    run = tmp_path / "run"
    train(FeedForward(SPEC, SHAPE), demos, QUICK, run=run)
    config = run / "config.json"
    if kind == "link":
        (tmp_path / "outside").write_bytes(config.read_bytes())
        config.unlink()
        config.symlink_to(tmp_path / "outside")
    else:
        os.truncate(config, 4 * 2**30)
    with pytest.raises(ConfigError, match="no plain file of up to"):
        train(FeedForward(SPEC, SHAPE), demos, QUICK, run=run, resume=True)


def test_a_held_out_loss_that_is_not_finite_ends_the_training(tmp_path):
    """Else it would never be the best, and the policy would be the one before the first step."""
    with Dataset.create(tmp_path / "demos", SPEC) as demos:
        for index in range(10):
            demos.append(point_episode(index))
    held_out = demos.split(QUICK.held_out, seed=QUICK.seed)[1].rows[0].id
    with Dataset.create(tmp_path / "odd", SPEC) as odd:
        for row, episode in zip(demos.rows, demos, strict=True):
            actions = episode.actions * (1e25 if row.id == held_out else 1)
            odd.append(Episode(episode.observations, actions, success=1))
    policy = FeedForward.for_data(odd, replace(SHAPE, head="squared"))
    with pytest.raises(TrainingDiverged, match="held-out loss is inf"):
        train(policy, odd, replace(QUICK, clip_targets=False, lead=0))


@pytest.mark.parametrize("seed", range(4))
def test_the_one_episode_that_teaches_is_never_held_out(tmp_path, seed):
    with Dataset.create(tmp_path / "demos", SPEC) as demos:
        demos.append(point_episode(0))
        demos.append(replace(point_episode(1), driver=np.zeros(len(point_episode(1)), np.int8)))
    train(new_policy(demos), demos, replace(QUICK, seed=seed))


@pytest.mark.parametrize("name", ["steps", "batch_size", "measure_every", "threads", "lead"])
def test_a_fraction_is_no_count(name):
    with pytest.raises(ConfigError, match=f"{name} is 2.5; accepted: whole numbers"):
        TrainConfig(**{name: 2.5})


def test_a_parameter_that_does_not_learn_stays_as_it_is(demos):
    policy = new_policy(demos)
    policy.layers[0].weight.requires_grad_(False)
    trained = train(policy, demos, QUICK)
    assert torch.equal(trained.layers[0].weight, policy.layers[0].weight)
    assert not torch.equal(trained.layers[-1].weight, policy.layers[-1].weight)


class Forgetful(FeedForward):
    """A policy of one's own that drops observations while it learns, and keeps a running mean of what it has seen."""

    kind = "forgetful"
    loss_can_be_recorded = False

    def __init__(self, spec, config):
        super().__init__(spec, config)
        self.register_buffer("running", torch.zeros(1))

    def loss(self, batch):
        if self.training:
            self.running.mul_(0.9).add_(0.1 * batch.observations.mean())
        seen = torch.nn.functional.dropout(batch.observations, 0.3, self.training) + 0.1 * self.running
        return super().loss(batch._replace(observations=seen))


def test_a_network_that_draws_and_keeps_count_gives_the_same_bytes_twice_and_after_an_interruption(demos, tmp_path):
    policy = Forgetful.for_data(demos, SHAPE)

    def trained(**more):
        return train(policy, demos, QUICK, **more)

    expected = digest(trained())
    torch.manual_seed(7)
    before = torch.get_rng_state()
    assert digest(trained()) == expected
    assert torch.equal(torch.get_rng_state(), before), "nobody else's draws are disturbed"

    def stop(log):
        if log.step == 20:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        trained(run=tmp_path / "run", on_log=stop)
    assert digest(trained(run=tmp_path / "run", resume=True)) == expected
    assert digest(new_policy(demos)) != expected
