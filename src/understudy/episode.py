"""The Episode: one attempt from reset to end, with who drove, what the expert said and what was really executed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from understudy.agent import Driver
from understudy.errors import DataError

SUCCESS, FAILURE, UNKNOWN = 1, 0, -1


@dataclass(frozen=True, slots=True, eq=False)
class Episode:
    """One attempt, as frozen columns of T steps. A demonstration is an episode that the expert drove.

    Args:
        observations: (T + 1, D) float32; the last row is what was seen after the last action.
        actions: (T, A) float32, what was executed after all limits.
        asked_actions: (T, A) float32, what the agent asked for; `actions` where not given.
        labels: (T, A) float32, what the expert said; meaningful only where `labelled`.
        labelled: (T,) bool, where the expert was asked.
        driver: (T,) int8, Driver of each step; the expert where not given.
        rewards: (T,) float32; 0 where not given.
        succeeded: (T,) bool, whether the world reported success at each step.
        time_s: (T,) float64, measured seconds since the episode's first observation; NaN where nobody measured.
        terminated: the task ended (a state without a future).
        truncated: the time ran out (the future exists, it was not looked at).
        success: SUCCESS, FAILURE or UNKNOWN.
        partial: the recording was interrupted; never used for training unless asked for.
        seed: seed of the start; -1 where unknown.
        initial_state: arrays that put a simulator back to the start, where the start was not drawn from the seed.

    Raises:
        DataError: columns of different lengths, or of the wrong shape; a verdict, a seed or a driver that is none.
    """

    observations: NDArray[np.float32]
    actions: NDArray[np.float32]
    asked_actions: NDArray[np.float32] = None  # type: ignore[assignment]
    labels: NDArray[np.float32] = None  # type: ignore[assignment]
    labelled: NDArray[np.bool_] = None  # type: ignore[assignment]
    driver: NDArray[np.int8] = None  # type: ignore[assignment]
    rewards: NDArray[np.float32] = None  # type: ignore[assignment]
    succeeded: NDArray[np.bool_] = None  # type: ignore[assignment]
    time_s: NDArray[np.float64] = None  # type: ignore[assignment]
    terminated: bool = False
    truncated: bool = False
    success: int = UNKNOWN
    partial: bool = False
    seed: int = -1
    initial_state: Mapping[str, NDArray[Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        actions = np.asarray(self.actions)
        if actions.ndim != 2 or len(actions) == 0 or actions.shape[1] == 0:
            raise DataError(f"actions must be (T, A) with at least one step and one channel; got {actions.shape}")
        steps, size = actions.shape
        defaults: dict[str, Any] = {
            "asked_actions": actions,
            "labels": np.zeros((steps, size), np.float32),
            "labelled": np.zeros(steps, bool),
            "driver": np.full(steps, Driver.EXPERT, np.int8),
            "rewards": np.zeros(steps, np.float32),
            "succeeded": np.zeros(steps, bool),
            "time_s": np.full(steps, np.nan),
        }
        for name, dtype in COLUMNS.items():
            value = getattr(self, name)
            given = defaults[name] if value is None else value
            if name == "driver" and not np.isin(given, [*Driver]).all():
                raise DataError("driver holds something else than 0 (the policy) and 1 (the expert)")
            column = np.array(given, dtype)
            wanted = (steps, size) if name in _ACTION_COLUMNS else (steps,)
            if name == "observations":
                if column.ndim != 2 or len(column) != steps + 1 or column.shape[1] == 0:
                    raise DataError(
                        f"observations must be (T + 1, D) = ({steps + 1}, D) for {steps} actions; got {column.shape}"
                    )
            elif column.shape != wanted:
                raise DataError(f"{name} must be {wanted} like the actions; got {column.shape}")
            column.flags.writeable = False
            object.__setattr__(self, name, column)
        if self.success not in (SUCCESS, FAILURE, UNKNOWN):
            raise DataError(f"success must be 1, 0 or -1 (unknown); got {self.success!r}")
        if not isinstance(self.seed, int | np.integer) or not -1 <= self.seed < 2**63:
            raise DataError(f"seed must be a whole number from 0 to 2^63 - 1, or -1 (unknown); got {self.seed!r}")
        for name, kind in (
            ("success", int),
            ("seed", int),
            ("terminated", bool),
            ("truncated", bool),
            ("partial", bool),
        ):
            object.__setattr__(self, name, kind(getattr(self, name)))
        state = {key: np.array(value) for key, value in self.initial_state.items()}
        object.__setattr__(self, "initial_state", MappingProxyType(state))

    def __len__(self) -> int:
        """T, the number of steps."""
        return len(self.actions)

    def targets(self) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """What a policy should have done: actions (T, A) and where they may be trained on (T,).

        The label where the expert was asked, else the action where the expert drove, else nothing: a step that the
        policy drove unasked is history and no target.
        """
        targets = np.where(self.labelled[:, None], self.labels, self.actions)
        return targets, self.labelled | (self.driver == Driver.EXPERT)

    def __repr__(self) -> str:
        verdict = {SUCCESS: "success", FAILURE: "failure", UNKNOWN: "unjudged"}[self.success]
        return f"Episode({len(self)} steps, {verdict}{', partial' if self.partial else ''})"

    def __reduce__(self) -> tuple[Any, ...]:
        # A mapping proxy does not pickle; the constructor takes a plain dict and freezes it again.
        values = {item.name: getattr(self, item.name) for item in fields(self)}
        return _rebuild, ({**values, "initial_state": dict(self.initial_state)},)


COLUMNS: dict[str, Any] = {
    "observations": np.float32,
    "actions": np.float32,
    "asked_actions": np.float32,
    "labels": np.float32,
    "labelled": np.bool_,
    "driver": np.int8,
    "rewards": np.float32,
    "succeeded": np.bool_,
    "time_s": np.float64,
}
_ACTION_COLUMNS = ("actions", "asked_actions", "labels")


def _rebuild(values: dict[str, Any]) -> Episode:
    return Episode(**values)
