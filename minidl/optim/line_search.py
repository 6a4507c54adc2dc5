"""How far to go along a direction: a line search for the strong Wolfe conditions.

φ(a) is the objective at w + a · d. A step a is good enough if the objective falls by a share of
what its slope promises, and if the slope has become flatter:

    φ(a) ≤ φ(0) + c₁ · a · φ'(0)    and    |φ'(a)| ≤ c₂ · |φ'(0)|

The second keeps steps from being too short, and makes the curvature along the step positive, as
L-BFGS needs it. Source: Nocedal and Wright 2006, section 3.5.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from minidl.typing import Array

DECREASE = 1e-4  # c₁
CURVATURE = 0.9  # c₂
FARTHEST = 10.0  # the next trial lies at most so many times as far as the distance between two
NEAREST = 0.1  # the share of an interval that a trial stays away from its ends


@dataclass(frozen=True)
class Point:
    """A point of the line: how far it is along, the objective there, its slope and gradient.

    Where the objective is not finite, ``value`` is infinite.
    """

    at: float
    value: float
    slope: float
    gradient: Array


Evaluate = Callable[[float], Point]


def strong_wolfe(
    evaluate: Evaluate, begin: Point, first: float, most: int, least: float = 0.0
) -> Point:
    """Find a point of the line that satisfies both conditions.

    Trials go farther and farther until an interval must hold such a point; then it is narrowed.

    Parameters
    ----------
    evaluate
        Computes the point at a distance.
    begin
        The point at distance 0, with a negative slope.
    first
        The distance of the first trial, > 0.
    most
        The largest number of trials, ≥ 1.
    least
        An interval that is not wider is not narrowed.

    Returns
    -------
    Point
        A point that satisfies both conditions. If there was none among the trials: one where the
        objective has fallen enough, or else ``begin``.
    """
    low, point = begin, evaluate(first)
    for left in range(most - 1, -1, -1):
        if not _falls(begin, point) or (low is not begin and point.value >= low.value):
            return _zoom(evaluate, begin, low, point, left, least)
        if _is_flatter(begin, point) or left == 0:
            return point
        if point.slope >= 0:
            return _zoom(evaluate, begin, point, low, left, least)
        low, point = point, evaluate(_beyond(low, point))
    return point


def _zoom(
    evaluate: Evaluate, begin: Point, low: Point, high: Point, most: int, least: float
) -> Point:
    """Narrow the interval between two points that must hold a good one.

    ``low`` is the lowest point known where the objective has fallen enough. Its slope points into
    the interval. ``high`` is the other end, on either side of it.
    """
    for _ in range(most):
        at = _between(low, high)
        if abs(high.at - low.at) <= least or at in (low.at, high.at):
            break
        point = evaluate(at)
        if not _falls(begin, point) or point.value >= low.value:
            high = point
            continue
        if _is_flatter(begin, point):
            return point
        if point.slope * (high.at - low.at) >= 0:
            high = low
        low = point
    return low


def _falls(begin: Point, point: Point) -> bool:
    """Whether the objective has fallen by a share of what the slope promises."""
    return point.value <= begin.value + DECREASE * point.at * begin.slope


def _is_flatter(begin: Point, point: Point) -> bool:
    return abs(point.slope) <= -CURVATURE * begin.slope


def _beyond(low: Point, point: Point) -> float:
    """Choose the next trial, farther than ``point``: where a cubic has its minimum, if near."""
    distance = point.at - low.at
    nearest, farthest = point.at + distance, point.at + FARTHEST * distance
    guess = _minimum_of_cubic(low, point)
    return min(max(guess, nearest), farthest) if guess > point.at else farthest


def _between(low: Point, high: Point) -> float:
    """Choose the next trial between two points: where a cubic has its minimum, or the middle."""
    width = high.at - low.at
    if not math.isfinite(high.value):
        return low.at + NEAREST * width
    guess = _minimum_of_cubic(low, high)
    ends = sorted((low.at + NEAREST * width, high.at - NEAREST * width))
    return min(max(guess, ends[0]), ends[1]) if math.isfinite(guess) else low.at + width / 2


def _minimum_of_cubic(a: Point, b: Point) -> float:
    """Return where the cubic through two values and slopes has its minimum; NaN if nowhere.

    Source: Nocedal and Wright 2006, equation 3.59.
    """
    secant = (b.value - a.value) / (b.at - a.at)
    mean = a.slope + b.slope - 3 * secant
    square = mean * mean - a.slope * b.slope
    if not square >= 0:
        return math.nan
    root = math.copysign(math.sqrt(square), b.at - a.at)
    bottom = b.slope - a.slope + 2 * root
    return b.at - (b.at - a.at) * (b.slope + root - mean) / bottom if bottom else math.nan
