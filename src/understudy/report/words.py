"""Numbers in words, the same everywhere in a report."""

from __future__ import annotations

import math

from understudy.evaluate import Evaluation

NONE = "\N{EN DASH}"
_NBSP = "\N{NO-BREAK SPACE}"
_UNDRAWABLE = 1e100


def percent(share: float) -> str:
    """0.667 as 67%; what is neither none nor all never reads as such."""
    if 0 < share < 0.01:
        return "<1%"
    if 0.99 < share < 1:
        return ">99%"
    return f"{share:.0%}"


def between(interval: tuple[float, float]) -> str:
    """An interval of a share."""
    return f"{percent(interval[0])} to {percent(interval[1])}"


def points(difference: float, digits: int = 0) -> str:
    """A difference of two shares, in percentage points with its sign."""
    return f"{100 * difference:+.{digits}f}".replace("-", "\N{MINUS SIGN}")


def point_digits(difference: float) -> int:
    """Decimals with which a difference in percentage points does not read as none."""
    size = abs(100 * difference)
    return max(1, math.ceil(-math.log10(size))) if 0 < size < 1 else 0


def chance(p_value: float) -> str:
    """A p-value."""
    return f"p{_NBSP}<{_NBSP}0.001" if p_value < 0.001 else f"p{_NBSP}={_NBSP}{p_value:.2g}"


def counted(count: int, one: str, many: str = "") -> str:
    """1 failure, 2 failures."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def at_step(step: float | None, control_hz: float) -> str:
    """A step, with its time where the rate is known."""
    if step is None:
        return NONE
    return f"step {step:.0f} ({step / control_hz:.1f} s)" if control_hz else f"step {step:.0f}"


def number(value: float) -> str:
    """A number with as many digits as one would read."""
    if not math.isfinite(value):
        return "not a number" if math.isnan(value) else "infinite"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def is_number(*values: object) -> bool:
    """Whether all of these are numbers that one can draw; a file may hold anything."""
    return all(isinstance(value, int | float) and abs(value) < _UNDRAWABLE for value in values)


def success_of(evaluation: Evaluation) -> str:
    """Successes and starts."""
    return f"{evaluation.successes} of {len(evaluation.trials)}"
