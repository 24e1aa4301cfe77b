"""Updates: how a batch of experience changes the actor. NPG and PPO; demonstration rows in the batch make them DAPG."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, NamedTuple, Protocol

import torch
from torch import Tensor

from understudy.errors import ConfigError, TrainingDiverged, require_whole
from understudy.reinforcement.actor import Actor
from understudy.reinforcement.memory import Memory, adam

Order = Callable[[str, int, int], Tensor]


class Batch(NamedTuple):
    """Rows that an update learns from. On-policy rows come first.

    Args:
        inputs: what the actor needs of the N observations (`Actor.inputs`).
        actions: (N, A) that were asked for, in deviations.
        weight: (N,) whitened advantage of an on-policy row; the demonstration term's weight of any other.
        on_policy: number of on-policy rows; Fisher matrix, KL and advantages know no others.
        distance: rows of demonstrations pull the mean towards their action instead of raising its likelihood.
    """

    inputs: Tensor
    actions: Tensor
    weight: Tensor
    on_policy: int
    distance: bool = False


@dataclass(frozen=True, slots=True)
class UpdateLog:
    """What an update did.

    Args:
        kl: mean KL divergence from the old to the new actor, over the on-policy rows.
        step: length of the step along the direction (NPG), or epochs that were done (PPO).
        halvings: how often the step was halved until the KL held.
    """

    kl: float
    step: float
    halvings: int = 0


class Update(Protocol):
    """Changes the actor by a batch."""

    name: ClassVar[str]

    def __call__(self, actor: Actor, batch: Batch, memory: Memory, order: Order, progress: float = 0.0) -> UpdateLog:
        """One update.

        Args:
            actor: changed in place.
            batch: what to learn from.
            memory: empty at first; what the update leaves there it finds again at the next batch.
            order: `order(purpose, epoch, rows)` is a permutation of so many rows.
            progress: share of the run's steps that came before this batch.
        """
        ...

    def options(self) -> dict[str, Any]:
        """What it was asked for, as plain JSON."""
        ...


@dataclass(frozen=True, slots=True)
class NPG:
    """Natural policy gradient with a normalised step.

    g is the gradient of sum_i w_i log pi(a_i | o_i) / N over all rows, N the number of on-policy ones; F the Fisher
    matrix of the on-policy rows. Conjugate gradients solve F x = g, and the parameters move by

        sqrt(step_size / (g^T x)) x

    which the quadratic model of the KL divergence puts at a KL of step_size / 2 (Kakade 2001; the normalised step of
    Rajeswaran et al. 2017, "Towards Generalization and Simplicity in Continuous Control"). The KL is then measured,
    and the step halved until it holds.

    Args:
        step_size: delta, twice the KL divergence that the quadratic model foresees.
        last_step_size: delta to which it changes evenly over all steps, those of the judging at the end included;
            `step_size` where not given.
        kl_limit: largest mean KL divergence of a step; delta, twice what is foreseen, where not given.
        cg_iterations: of conjugate gradients.
        damping: added to the diagonal of F.

    Raises:
        ConfigError: a value is out of range.
    """

    name: ClassVar[str] = "npg"
    step_size: float = 0.05
    last_step_size: float | None = None
    kl_limit: float | None = None
    cg_iterations: int = 10
    damping: float = 1e-4

    def __post_init__(self) -> None:
        require_whole("cg_iterations", self.cg_iterations, 1, 1000)
        for name in ("step_size", "last_step_size", "kl_limit"):
            require_above_0(name, getattr(self, name))
        if not 0 <= self.damping < math.inf:
            raise ConfigError(f"damping is {self.damping}; accepted: 0 or more")

    def options(self) -> dict[str, Any]:
        """What it was asked for, as plain JSON."""
        return asdict(self)

    def __call__(self, actor: Actor, batch: Batch, memory: Memory, order: Order, progress: float = 0.0) -> UpdateLog:
        """One natural step."""
        last = self.step_size if self.last_step_size is None else self.last_step_size
        delta = self.step_size + (last - self.step_size) * min(progress, 1.0)
        gradient = _flat(torch.autograd.grad(_objective(actor, batch), actor.parameters)).double()
        if not bool(torch.isfinite(gradient).all()):
            raise TrainingDiverged("the policy gradient is not finite; try a smaller step_size or look at the rewards")
        if not bool(gradient.any()):
            return UpdateLog(0.0, 0.0)
        fisher = _FisherProducts(actor, batch.inputs[: batch.on_policy], self.damping)
        direction = conjugate_gradients(fisher, gradient, self.cg_iterations)
        length = math.sqrt(delta / max(float(gradient @ direction), 1e-20))
        old = _Gaussian.of(actor, batch.inputs[: batch.on_policy])
        start, limit = actor.vector(), delta if self.kl_limit is None else self.kl_limit
        for halvings in range(_MOST_HALVINGS):
            actor.move(start + (length * direction).float())
            kl = old.kl_to(_Gaussian.of(actor, batch.inputs[: batch.on_policy]))
            if kl <= limit:
                return UpdateLog(kl, length, halvings)
            length /= 2
        actor.move(start)
        return UpdateLog(0.0, 0.0, _MOST_HALVINGS)


@dataclass(frozen=True, slots=True)
class PPO:
    """Proximal policy optimisation with a clipped objective.

    Several epochs of minibatches of Adam on the mean of min(rho A, clip(rho, 1 - clip, 1 + clip) A), rho the ratio of
    the new to the old likelihood of the action (Schulman et al. 2017, equation 7). Each minibatch gets its share of
    the demonstration rows, whose weighted log-likelihood is added: they have no old likelihood to be clipped against.

    Args:
        clip: epsilon.
        epochs: over each batch.
        minibatch: on-policy rows in each update.
        learning_rate: of Adam.
        gradient_clip: largest norm of the gradient.
        kl_limit: no epoch begins once the mean KL divergence from the old actor is above it; None turns it off.

    Raises:
        ConfigError: a value is out of range.
    """

    name: ClassVar[str] = "ppo"
    clip: float = 0.2
    epochs: int = 10
    minibatch: int = 256
    learning_rate: float = 3e-4
    gradient_clip: float = 0.5
    kl_limit: float | None = 0.03

    def __post_init__(self) -> None:
        for name in ("epochs", "minibatch"):
            require_whole(name, getattr(self, name), 1)
        for name in ("clip", "learning_rate", "gradient_clip", "kl_limit"):
            require_above_0(name, getattr(self, name))

    def options(self) -> dict[str, Any]:
        """What it was asked for, as plain JSON."""
        return asdict(self)

    def __call__(self, actor: Actor, batch: Batch, memory: Memory, order: Order, progress: float = 0.0) -> UpdateLog:
        """A few epochs of clipped steps."""
        count, rows = batch.on_policy, len(batch.weight)
        inputs, actions, advantages = (column[:count] for column in batch[:3])
        old = _Gaussian.of(actor, inputs)
        with torch.no_grad():
            old_likelihood = actor.log_likelihood(old.mean, actions)
        optimizer = adam(actor.parameters, memory, self.learning_rate)
        parts = math.ceil(count / self.minibatch)
        kl, epoch = 0.0, 0
        for epoch in range(self.epochs):
            if self.kl_limit is not None and kl > self.kl_limit:
                break
            shown = order("demonstrations", epoch, rows - count).chunk(parts) if rows > count else ()
            for part, chosen in enumerate(order("steps", epoch, count).split(self.minibatch)):
                likelihood = actor.log_likelihood(actor.mean(inputs[chosen]), actions[chosen])
                ratio, advantage = torch.exp(likelihood - old_likelihood[chosen]), advantages[chosen]
                clipped = ratio.clamp(1 - self.clip, 1 + self.clip)
                loss = -torch.minimum(ratio * advantage, clipped * advantage).mean()
                if part < len(shown):
                    rows_of = count + shown[part]
                    demonstrated = Batch(
                        batch.inputs[rows_of], batch.actions[rows_of], batch.weight[rows_of], 0, batch.distance
                    )
                    # By the mean size of a minibatch: in a small last one they would weigh more than in the others.
                    loss = loss - _objective(actor, demonstrated) * parts / count
                optimizer.zero_grad()
                loss.backward()
                torch.nn.utils.clip_grad_norm_(actor.parameters, self.gradient_clip, foreach=True)
                optimizer.step()
                with torch.no_grad():
                    actor.log_deviation.clamp_(min=actor.least)
            kl = old.kl_to(_Gaussian.of(actor, inputs))
        else:
            epoch += 1
        optimizer.remember()
        if not math.isfinite(kl):
            raise TrainingDiverged("the policy is no longer finite; try a lower learning_rate or look at the rewards")
        return UpdateLog(kl, float(epoch))


_MOST_HALVINGS = 20


class _Gaussian(NamedTuple):
    """What the actor says of some rows, as numbers: mean (N, A) and log sigma (A,)."""

    mean: Tensor
    log_deviation: Tensor

    @classmethod
    def of(cls, actor: Actor, inputs: Tensor) -> _Gaussian:
        with torch.no_grad():
            return cls(actor.mean(inputs), actor.log_deviation.clone())

    def kl_to(self, new: _Gaussian) -> float:
        """Mean KL(old || new) over the rows."""
        return float(_kl(self, new))


def _kl(old: _Gaussian, new: _Gaussian) -> Tensor:
    """KL(old || new) = sum_j log(s'/s) + (s^2 + (m - m')^2) / (2 s'^2) - 1/2, the mean over the rows."""
    variance, new_variance = torch.exp(2 * old.log_deviation), torch.exp(2 * new.log_deviation)
    moved = (old.mean - new.mean).square().mean(0)
    return (new.log_deviation - old.log_deviation + (variance + moved) / (2 * new_variance) - 0.5).sum()


def _objective(actor: Actor, batch: Batch) -> Tensor:
    """Sum_i w_i log pi(a_i | o_i) over all rows, divided by the number of on-policy rows where there are some."""
    mean = actor.mean(batch.inputs)
    count = batch.on_policy
    rows = count if batch.distance else len(batch.weight)
    total = (batch.weight[:rows] * actor.log_likelihood(mean[:rows], batch.actions[:rows])).sum()
    if rows < len(batch.weight):
        # The norm has no gradient at 0; one millionth of a deviation is as good as there.
        distance = ((mean[rows:] - batch.actions[rows:]).square().sum(1) + 1e-12).sqrt()
        total = total - (batch.weight[rows:] * distance).sum()
    return total / max(count, 1)


class _FisherProducts:
    """v -> (F + damping I) v over some rows, F being the Hessian of the KL divergence from the actor to itself.

    The gradient of the KL is built once; each product is one more pass through its graph.
    """

    def __init__(self, actor: Actor, inputs: Tensor, damping: float) -> None:
        self._parameters, self._damping = actor.parameters, damping
        new = _Gaussian(actor.mean(inputs), actor.log_deviation)
        old = _Gaussian(new.mean.detach(), new.log_deviation.detach())
        self._gradient = _flat(torch.autograd.grad(_kl(old, new), self._parameters, create_graph=True))

    def __call__(self, vector: Tensor) -> Tensor:
        along = (self._gradient * vector.float()).sum()
        product = _flat(torch.autograd.grad(along, self._parameters, retain_graph=True))
        return product.double() + self._damping * vector


def conjugate_gradients(
    product: Callable[[Tensor], Tensor], target: Tensor, iterations: int, tolerance: float = 1e-10
) -> Tensor:
    """X with `product(x)` = target for a symmetric positive definite product, (P,) float64.

    Hestenes and Stiefel 1952, from x = 0, until the squared residual is below `tolerance` times that of the target, or
    the product says nothing of the direction that is left (a singular one, which a damping of 0 allows).
    """
    solution, residual = torch.zeros_like(target), target.clone()
    direction, size = residual.clone(), float(residual @ residual)
    enough = tolerance * size
    for _ in range(iterations):
        if size <= enough:
            break
        image = product(direction)
        curvature = float(direction @ image)
        if not curvature > 0:
            break
        length = size / curvature
        solution += length * direction
        residual -= length * image
        before, size = size, float(residual @ residual)
        direction = residual + (size / before) * direction
    return solution


def _flat(tensors: tuple[Tensor, ...]) -> Tensor:
    return torch.cat([tensor.reshape(-1) for tensor in tensors])


def require_above_0(name: str, value: float | None) -> None:
    """Refuses an option that is given and not a finite number above 0.

    Raises:
        ConfigError: so it is.
    """
    if value is not None and not 0 < value < math.inf:
        raise ConfigError(f"{name} is {value}; accepted: above 0")
