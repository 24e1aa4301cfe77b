import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.reinforcement.reach import ReachWorld, clone, demonstrations
from tests.reinforcement.test_actor import LEAST
from understudy.dataset import Dataset
from understudy.errors import ConfigError, DataError, TrainingDiverged
from understudy.reinforcement import NPG, PPO, DemoTerm, DistanceTerm
from understudy.reinforcement.actor import Actor
from understudy.reinforcement.demos import DemoRows
from understudy.reinforcement.updates import Batch, _FisherProducts, _Gaussian, conjugate_gradients


@pytest.fixture(scope="module")
def demos(tmp_path_factory):
    return demonstrations(tmp_path_factory.mktemp("demos") / "data")


@pytest.fixture(scope="module")
def policy(demos):
    return clone(demos)


def actor_of(policy):
    return Actor(policy, np.array([-1.0, -0.5], np.float32), LEAST)


def batch_of(actor, rows=40, seed=0):
    generator = torch.Generator().manual_seed(seed)
    observations = torch.rand((rows, 1, 2), generator=generator) * 2 - 1
    actions = (
        actor.mean(observations).detach()
        + torch.randn((rows, 2), generator=generator) * actor.log_deviation.exp().detach()
    )
    weight = torch.randn(rows, generator=generator)
    return Batch(observations, actions, weight - weight.mean(), rows)


def order(purpose, epoch, rows):
    return torch.arange(rows)


def score(actor, batch, row):
    """The gradient of one row's log-likelihood, (P,)."""
    mean = actor.mean(batch.inputs[row : row + 1])
    likelihood = actor.log_likelihood(mean, batch.actions[row : row + 1])[0]
    return torch.cat([part.reshape(-1) for part in torch.autograd.grad(likelihood, actor.parameters)]).double()


def fisher_matrix(actor, batch):
    """(1 / N) sum_i J_i^T S^-1 J_i, J_i the Jacobian of the mean, and 2 for each log sigma, row by row."""
    size, channels = len(actor.vector()), 2
    matrix = torch.zeros((size, size), dtype=torch.float64)
    precision = torch.exp(-2 * actor.log_deviation.detach()).double()
    for row in range(batch.on_policy):
        mean = actor.mean(batch.inputs[row : row + 1])[0]
        for channel in range(channels):
            parts = torch.autograd.grad(mean[channel], actor.parameters, retain_graph=True, allow_unused=True)
            jacobian = torch.cat(
                [
                    torch.zeros(parameter.numel()) if part is None else part.reshape(-1)
                    for part, parameter in zip(parts, actor.parameters, strict=True)
                ]
            ).double()
            matrix += precision[channel] * torch.outer(jacobian, jacobian)
    matrix /= batch.on_policy
    for channel in range(channels):
        matrix[size - channels + channel, size - channels + channel] += 2
    return matrix


# ---- the parts ----


def test_the_kl_is_that_of_two_gaussians(policy):
    actor = actor_of(policy)
    observations = batch_of(actor).inputs
    old = _Gaussian.of(actor, observations)
    actor.move(actor.vector() + 0.01 * torch.randn(len(actor.vector()), generator=torch.Generator().manual_seed(1)))
    new = _Gaussian.of(actor, observations)
    reference = torch.distributions.kl_divergence(
        torch.distributions.Normal(old.mean, old.log_deviation.exp()),
        torch.distributions.Normal(new.mean, new.log_deviation.exp()),
    )
    assert old.kl_to(new) == pytest.approx(float(reference.sum(1).mean()), rel=1e-4)
    assert old.kl_to(old) == pytest.approx(0, abs=1e-6)


def test_fisher_products_are_those_of_the_matrix(policy):
    actor = actor_of(policy)
    batch = batch_of(actor)
    matrix, products = fisher_matrix(actor, batch), _FisherProducts(actor, batch.inputs, 0.01)
    for seed in range(3):
        vector = torch.randn(len(matrix), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        torch.testing.assert_close(products(vector), matrix @ vector + 0.01 * vector, rtol=1e-3, atol=1e-3)


def test_conjugate_gradients_leave_out_what_a_singular_matrix_does_not_see():
    matrix = torch.diag(torch.tensor([2.0, 0.0], dtype=torch.float64))
    for target, solution in (([4.0, 0.0], [2.0, 0.0]), ([0.0, 1.0], [0.0, 0.0])):
        found = conjugate_gradients(lambda vector: matrix @ vector, torch.tensor(target, dtype=torch.float64), 10)
        assert found.tolist() == pytest.approx(solution)


def test_conjugate_gradients_solve_what_a_factorisation_solves():
    random = np.random.default_rng(0)
    root = torch.from_numpy(random.normal(size=(12, 12)))
    matrix, target = root @ root.T + torch.eye(12), torch.from_numpy(random.normal(size=12))
    solution = conjugate_gradients(lambda vector: matrix @ vector, target, 40)
    torch.testing.assert_close(solution, torch.linalg.solve(matrix, target), rtol=1e-6, atol=1e-8)
    small = conjugate_gradients(lambda vector: matrix @ vector, target * 1e-9, 40)
    torch.testing.assert_close(small, solution * 1e-9, rtol=1e-6, atol=1e-16, msg="whatever the size of the gradient")


# ---- NPG ----


def literal_step(actor, batch, step_size, damping):
    gradient = sum(batch.weight[row].double() * score(actor, batch, row) for row in range(len(batch.weight)))
    gradient = gradient / batch.on_policy
    matrix = fisher_matrix(actor, batch) + damping * torch.eye(len(gradient), dtype=torch.float64)
    direction = torch.linalg.solve(matrix, gradient)
    return math.sqrt(step_size / float(gradient @ direction)) * direction


def test_a_natural_step_is_the_formula(policy):
    actor = actor_of(policy)
    batch = batch_of(actor)
    step = literal_step(actor, batch, 0.01, 0.1)
    start = actor.vector()
    log = NPG(step_size=0.01, damping=0.1, cg_iterations=200)(actor, batch, {}, order)
    torch.testing.assert_close((actor.vector() - start).double(), step, rtol=2e-2, atol=1e-4)
    assert 0.25 < log.kl / 0.005 < 1.5, "close to what the quadratic model foresees, less what the damping takes"


@pytest.mark.parametrize(("progress", "delta"), [(0.0, 0.01), (0.25, 0.0325), (1.0, 0.1), (1.5, 0.1)])
def test_the_step_changes_evenly_towards_its_last_size(policy, progress, delta):
    asked, foreseen = actor_of(policy), actor_of(policy)
    NPG(step_size=0.01, last_step_size=0.1)(asked, batch_of(asked), {}, order, progress)
    NPG(step_size=delta)(foreseen, batch_of(foreseen), {}, order)
    torch.testing.assert_close(asked.vector(), foreseen.vector())


def test_dapg_is_the_sum_over_both_kinds_of_rows(policy, demos):
    actor = actor_of(policy)
    batch, weight = DemoRows(DemoTerm(demos, lam0=0.2), actor).joined(batch_of(actor), 3)
    own = batch.weight[: batch.on_policy]
    assert weight == pytest.approx(0.2 * 0.95**3 * float(own.max()))
    assert len(batch.weight) == batch.on_policy + demos.steps
    assert (batch.weight[batch.on_policy :] == torch.tensor(weight)).all()
    step = literal_step(actor, batch, 0.01, 0.1)
    start = actor.vector()
    NPG(step_size=0.01, damping=0.1, cg_iterations=200)(actor, batch, {}, order)
    torch.testing.assert_close((actor.vector() - start).double(), step, rtol=2e-2, atol=1e-4)


def test_the_step_is_halved_until_the_measured_kl_holds(policy):
    actor = actor_of(policy)
    batch, start = batch_of(actor), actor.vector()
    log = NPG(step_size=2.0, kl_limit=0.02)(actor, batch, {}, order)
    assert log.halvings > 0
    assert 0.02 / 8 < log.kl <= 0.02
    again = actor_of(policy)
    whole = NPG(step_size=2.0, kl_limit=1e9)(again, batch, {}, order)
    assert log.step * 2**log.halvings == pytest.approx(whole.step)
    torch.testing.assert_close((actor.vector() - start) * 2**log.halvings, again.vector() - start, rtol=1e-3, atol=1e-5)


def test_the_kl_and_the_fisher_matrix_know_no_demonstrations(policy, demos):
    """Rows of demonstrations far away change the direction, and not what a step is measured by."""
    actor = actor_of(policy)
    batch = batch_of(actor)
    joined = batch._replace(
        inputs=torch.cat([batch.inputs, torch.full((30, 1, 2), 1.9)]),
        actions=torch.cat([batch.actions, torch.full((30, 2), 4.0)]),
        weight=torch.cat([batch.weight, torch.full((30,), 2.0)]),
    )
    old = _Gaussian.of(actor, batch.inputs)
    log = NPG(step_size=0.05)(actor, joined, {}, order)
    assert log.kl == pytest.approx(old.kl_to(_Gaussian.of(actor, batch.inputs)))
    assert log.kl <= 0.05


def test_without_a_gradient_nothing_moves(policy):
    actor = actor_of(policy)
    batch, start = batch_of(actor), actor.vector()
    log = NPG()(actor, batch._replace(weight=torch.zeros(40)), {}, order)
    assert (log.kl, log.step) == (0.0, 0.0)
    assert torch.equal(actor.vector(), start)


@pytest.mark.parametrize("update", [NPG(), PPO()])
def test_a_gradient_that_is_no_number_is_said(policy, update):
    actor = actor_of(policy)
    batch = batch_of(actor)
    weight = batch.weight.clone()
    weight[3] = math.nan
    with pytest.raises(TrainingDiverged, match="finite"):
        update(actor, batch._replace(weight=weight), {}, order)


# ---- PPO ----


def test_the_clipped_objective_is_the_literal_one(policy):
    """The first step of Adam is the learning rate along the sign of the gradient of -mean min(rho A, clip(rho) A)."""
    actor = actor_of(policy)
    batch = batch_of(actor)
    gradient = sum(-batch.weight[row].double() * score(actor, batch, row) for row in range(40)) / 40
    start = actor.vector()
    PPO(epochs=1, minibatch=40, learning_rate=1e-3, gradient_clip=1e9)(actor, batch, {}, order)
    moved = (actor.vector() - start).double()
    large = gradient.abs() > 1e-4
    torch.testing.assert_close(moved[large], -1e-3 * gradient[large].sign(), rtol=1e-2, atol=1e-6)


@pytest.mark.parametrize("kind", [DemoTerm, DistanceTerm])
def test_demonstrations_weigh_the_same_in_a_small_last_minibatch(policy, demos, kind, monkeypatch):
    """41 rows in minibatches of 20, 20 and 1: the last one holds a third of the demonstrations, as the others do."""
    norms = []
    monkeypatch.setattr(
        torch.nn.utils,
        "clip_grad_norm_",
        lambda parameters, *_, **__: norms.append(float(sum(one.grad.square().sum() for one in parameters)) ** 0.5),
    )
    actor = actor_of(policy)
    batch = batch_of(actor, rows=41)
    batch = batch._replace(weight=torch.zeros(41))
    rows = DemoRows(kind(demos, lam0=1.0, scale="one"), actor)
    batch = rows.joined(batch, 0)[0]
    PPO(epochs=1, minibatch=20, learning_rate=1e-9)(actor, batch, {}, lambda purpose, epoch, rows: torch.arange(rows))
    assert len(norms) == 3
    assert max(norms) < 4 * min(norms)


def test_a_ratio_beyond_the_clip_teaches_nothing_more(policy):
    """After many epochs no row with a positive advantage has been pushed far beyond 1 + clip."""
    actor = actor_of(policy)
    batch = batch_of(actor, rows=64)
    with torch.no_grad():
        before = actor.log_likelihood(actor.mean(batch.inputs), batch.actions)
    clipped, free = {}, {}
    for clip, kept in ((0.1, clipped), (1e6, free)):
        actor = actor_of(policy)
        PPO(clip=clip, epochs=60, minibatch=64, learning_rate=1e-2, kl_limit=None)(actor, batch, {}, order)
        with torch.no_grad():
            after = actor.log_likelihood(actor.mean(batch.inputs), batch.actions)
        kept["ratio"] = torch.exp(after - before)
    good = batch.weight > 0
    assert clipped["ratio"][good].max() < 2 < free["ratio"][good].max()


def test_no_epoch_begins_once_the_kl_is_above_its_limit(policy):
    actor = actor_of(policy)
    log = PPO(epochs=50, learning_rate=1e-2, kl_limit=0.01)(actor, batch_of(actor), {}, order)
    assert 1 <= log.step < 50
    assert log.kl > 0.01
    assert PPO(epochs=3, learning_rate=1e-5)(actor_of(policy), batch_of(actor), {}, order).step == 3


def test_the_moments_of_adam_go_on_from_batch_to_batch(policy):
    one, two, memory = actor_of(policy), actor_of(policy), {}
    update = PPO(epochs=1, minibatch=40)
    update(one, batch_of(one), memory, order)
    assert float(memory["0.step"]) == 1
    update(one, batch_of(one), memory, order)
    assert float(memory["0.step"]) == 2
    update(two, batch_of(two), {}, order)
    update(two, batch_of(two), {}, order)
    assert not torch.equal(one.vector(), two.vector()), "what it remembers matters"


# ---- demonstration terms ----


def test_the_weight_fades_from_batch_to_batch(demos):
    term = DemoTerm(demos, lam0=0.1, lam1=0.9)
    for iteration in range(5):
        assert term.weight(iteration, 4.0) == pytest.approx(0.1 * 0.9**iteration * 4.0)
        alone = DemoTerm(demos, lam0=0.1, lam1=0.9, scale="one")
        assert alone.weight(iteration, 4.0) == pytest.approx(0.1 * 0.9**iteration)


@pytest.mark.parametrize("kind", [DemoTerm, DistanceTerm])
@pytest.mark.parametrize("update", [NPG(), PPO(minibatch=16)])
def test_a_weight_of_0_appends_no_rows_and_changes_nothing(policy, demos, kind, update):
    actor, alone = actor_of(policy), actor_of(policy)
    batch = batch_of(actor)
    joined, weight = DemoRows(kind(demos, lam0=0.0), actor).joined(batch, 0)
    assert joined is batch
    assert weight == 0
    update(actor, joined, {}, order)
    update(alone, batch, {}, order)
    assert torch.equal(actor.vector(), alone.vector())


def test_a_failed_attempt_shows_nothing(policy, tmp_path):
    with Dataset.create(tmp_path / "data", ReachWorld()) as data:
        for episode, success in zip(demonstrations(tmp_path / "shown"), (1, 0, -1, 0), strict=True):
            data.append(replace(episode, success=success))
    shown = Dataset.open(tmp_path / "data")
    rows = DemoRows(DemoTerm(shown), actor_of(policy))
    assert len(rows.actions) == sum(len(shown[place]) for place in (0, 2))
    with pytest.raises(DataError, match=r"all 2 demonstrations of .* failed"):
        DemoRows(DemoTerm(shown.select([1, 3])), actor_of(policy))


def test_the_distance_term_is_the_gradient_of_the_distance(policy, demos):
    actor = actor_of(policy)
    batch = batch_of(actor)
    joined, weight = DemoRows(DistanceTerm(demos, lam0=0.3, scale="one"), actor).joined(batch, 0)
    assert joined.distance
    shown = joined.inputs[batch.on_policy :], joined.actions[batch.on_policy :]
    total = torch.zeros(len(actor.vector()), dtype=torch.float64)
    for observation, action in zip(*shown, strict=True):
        distance = torch.linalg.vector_norm(actor.mean(observation[None])[0] - action)
        parts = torch.autograd.grad(distance, actor.parameters[:-1])
        total[:-2] -= weight * torch.cat([part.reshape(-1) for part in parts]).double()
    own = sum(batch.weight[row].double() * score(actor, batch, row) for row in range(40))
    gradient = (own + total) / 40
    matrix = fisher_matrix(actor, batch) + 0.1 * torch.eye(len(gradient), dtype=torch.float64)
    direction = torch.linalg.solve(matrix, gradient)
    start = actor.vector()
    NPG(step_size=0.01, damping=0.1, cg_iterations=200)(actor, joined, {}, order)
    step = math.sqrt(0.01 / float(gradient @ direction)) * direction
    torch.testing.assert_close((actor.vector() - start).double(), step, rtol=3e-2, atol=2e-4)


@pytest.mark.parametrize("kind", [DemoTerm, DistanceTerm])
@pytest.mark.parametrize("update", [NPG(step_size=0.05), PPO(minibatch=40, learning_rate=3e-3)])
def test_demonstrations_alone_make_the_actor_do_as_shown(policy, demos, kind, update):
    actor = actor_of(policy)
    actor.move(actor.vector() * 0.3)
    rows = DemoRows(kind(demos, lam0=1.0, lam1=1.0, scale="one"), actor)
    before, memory = rows.residual(actor).mean(), {}
    batch = batch_of(actor)._replace(weight=torch.zeros(40))
    for iteration in range(25):
        joined, _ = rows.joined(batch, iteration)
        update(actor, joined, memory, order)
    assert rows.residual(actor).mean() < 0.7 * before


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        (lambda demos: DemoTerm(demos, lam0=-1), "lam0 is -1; accepted: 0 or more, up to 1e+06"),
        (lambda demos: DemoTerm(demos, lam0=1e300), "lam0 is 1e+300; accepted: 0 or more, up to 1e+06"),
        (lambda demos: DistanceTerm(demos, lam1=1.5), "lam1 is 1.5; accepted: 0 to 1"),
        (lambda demos: DemoTerm(demos, scale="mean"), "scale is 'mean'; accepted: max, one"),
        (lambda demos: NPG(step_size=0), "step_size is 0; accepted: above 0"),
        (lambda demos: NPG(damping=-1), "damping is -1; accepted: 0 or more"),
        (lambda demos: NPG(cg_iterations=0), "cg_iterations is 0; accepted: whole numbers, 1 to 1000"),
        (lambda demos: PPO(clip=0), "clip is 0; accepted: above 0"),
        (lambda demos: PPO(minibatch=0), "minibatch is 0; accepted: whole numbers, 1 or more"),
    ],
)
def test_values_that_cannot_work_are_refused(demos, bad, said):
    with pytest.raises(ConfigError) as raised:
        bad(demos)
    assert str(raised.value) == said
