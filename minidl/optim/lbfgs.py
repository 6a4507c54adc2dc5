"""L-BFGS: steps along an estimate of Newton's direction, from recent changes of the gradient."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np

from minidl import kernels
from minidl.nn.checks import POSITIVE, check_choice, check_count, check_number
from minidl.nn.hooks import is_recording
from minidl.optim.curvature_pairs import CurvaturePairs
from minidl.optim.line_search import Point, strong_wolfe
from minidl.optim.optimizer import Closure, Optimizer, Parameters, Rate
from minidl.typing import Array

MOST_TRIALS = 25  # of one line search
ROUNDING = 16  # units in the last place by which two losses differ though they are the same


class LBFGS(Optimizer):
    """L-BFGS with a line search: few but good steps on all data, where the loss is deterministic.

    w ← w + a · d,  d = -H · g, where H estimates the inverse Hessian from the latest pairs of a
    step and the change of the gradient along it, and a satisfies the strong Wolfe conditions.

    ``step(closure)`` makes up to ``max_iter`` such iterations. The closure clears the gradients,
    computes the loss, calls ``backward`` and returns the loss; it is called at least once for each
    iteration, and must return the same loss for the same weights: all rows, the same dropout masks.
    A ``Trainer`` does so by itself, with one ``step`` an epoch. A closure that calls a recorded
    function (``minidl.record``) is fastest.

    Source: Liu and Nocedal 1989; Nocedal and Wright 2006, algorithms 7.5, 3.5 and 3.6; names and
    defaults are PyTorch's, except that a line search is the default, that 10 pairs are kept, and
    that ``max_eval`` is no limit.

    Parameters
    ----------
    parameters
        As in every optimizer: see ``Optimizer``; groups may differ in ``weight_decay``.
    lr
        The first trial of a line search as a share of d, > 0, or a schedule: 1 is Newton's step.
        Before the first pair, of the smaller of g and g / ‖g‖. Without a line search, the step.
    max_iter
        The most iterations of one ``step``, ≥ 1.
    max_eval
        The most calls of the closure in one ``step``, ≥ 1; None: as many as iterations need.
    tolerance_grad
        A ``step`` ends where no element of the gradient is larger, ≥ 0.
    tolerance_change
        It ends where no weight changes by more in an iteration, or the loss by less, ≥ 0.
    history_size
        How many pairs are kept, ≥ 1.
    line_search_fn
        ``"strong_wolfe"``, or None for steps of fixed length, which may raise the loss in between.
    weight_decay
        λ ≥ 0: λ/2 · ‖w‖² is part of what is minimised.

    Attributes
    ----------
    reason
        Why the latest ``step`` ended, in a sentence that begins with ``converged``, ``limit``,
        ``plateau``, ``line search failed`` or ``not finite``.
    iterations, evaluations
        How many iterations and calls of the closure the latest ``step`` made.

    Raises
    ------
    ValueError
        For hyper-parameters outside these ranges, and for clipping and ``l1``, which do not go with
        a line search.

    Examples
    --------
    >>> import numpy as np
    >>> from minidl import nn, optim
    >>> x = np.linspace(-1, 1, 20, dtype=np.float32)[:, None]
    >>> layer, loss = nn.Linear(1, 1, rng=0), nn.MSELoss()
    >>> optimizer = optim.LBFGS(layer.parameters())
    >>> def closure():
    ...     value = loss(layer(x), 3 * x + 2)
    ...     optimizer.zero_grad()
    ...     layer.backward(loss.backward())
    ...     return value
    >>> before = optimizer.step(closure)
    >>> float(loss(layer(x), 3 * x + 2)) < 1e-10
    True
    >>> optimizer.converged
    True
    """

    takes_closure = True
    one_for_all: ClassVar[Mapping[str, str]] = {
        **Optimizer.one_for_all,
        "lr": "which make one step together",
    }
    refused: ClassVar[Mapping[str, str]] = {
        "l1": "|w| has no slope at 0; weight_decay is possible",
        **dict.fromkeys(
            ("max_norm", "max_value"),
            "a clipped gradient is not the slope of the loss, on which its steps rely",
        ),
    }

    def __init__(
        self,
        parameters: Parameters,
        lr: Rate = 1.0,
        max_iter: int = 20,
        max_eval: int | None = None,
        tolerance_grad: float = 1e-7,
        tolerance_change: float = 1e-9,
        history_size: int = 10,
        line_search_fn: str | None = "strong_wolfe",
        weight_decay: float = 0.0,
    ) -> None:
        self.max_iter, self.max_eval = max_iter, max_eval
        self.tolerance_grad, self.tolerance_change = tolerance_grad, tolerance_change
        self.line_search_fn = line_search_fn
        self.reason, self.iterations, self.evaluations = "", 0, 0
        count = check_count("LBFGS", "history_size", history_size)
        if not callable(lr):
            check_number("LBFGS", "lr", lr, POSITIVE, np.inf)
        self._check_settings()
        super().__init__(parameters, lr, None, weight_decay=weight_decay, l1=0.0, max_value=None)
        self.pairs = CurvaturePairs(count, self.flat.zeros)

    @property
    def history_size(self) -> int:
        """How many pairs are kept."""
        return len(self.pairs)

    @property
    def converged(self) -> bool:
        """Whether the latest ``step`` ended by one of the tolerances."""
        return self.reason.startswith("converged")

    @property
    def finished(self) -> bool:
        """Whether the latest ``step`` ended so that another one would do no more."""
        return bool(self.reason) and not self.reason.startswith("limit")

    def _check_settings(self) -> None:
        """Raise unless the settings, which may have been set since, are in their ranges."""
        check_count("LBFGS", "max_iter", self.max_iter)
        if self.max_eval is not None:
            check_count("LBFGS", "max_eval", self.max_eval)
        for name in ("tolerance_grad", "tolerance_change"):
            check_number("LBFGS", name, getattr(self, name), 0, np.inf)
        if self.line_search_fn is not None:
            check_choice("LBFGS", "line_search_fn", self.line_search_fn, "strong_wolfe")

    def vectors(self) -> dict[str, Array]:
        found: dict[str, Array] = {}
        for age, (step, change) in enumerate(reversed(self.pairs.pairs)):
            found |= {f"step{age}": step, f"change{age}": change}
        return found

    def step(self, closure: Closure | None = None) -> float:
        """Minimise what the closure computes, in up to ``max_iter`` iterations.

        The parameters are then at the best point that was found, never at a worse one than before,
        also if the closure raises; ``reason`` says why the step ended there.

        Parameters
        ----------
        closure
            Clears the gradients, computes the loss, calls ``backward`` and returns the loss.

        Returns
        -------
        float
            The first loss: that before the step.

        Raises
        ------
        FloatingPointError
            If the first loss or its gradient is not finite; nothing is changed then.
        TypeError
            If the closure is missing, or returns no number.
        """
        if not callable(closure):
            raise TypeError(
                "LBFGS.step takes a closure, a function that clears the gradients, computes the "
                f"loss, calls backward and returns the loss; got {closure!r}"
            )
        if is_recording():
            raise TypeError(
                "LBFGS.step cannot be recorded, as it decides in Python how far to go; record the "
                "closure and call step outside"
            )
        self._check_settings()
        self.flat.check()
        self.set_rate()
        check_number("LBFGS", "lr", self.lr, POSITIVE, np.inf)
        objective = _Objective(self, closure)
        loss, point = objective.first()
        here = self.flat.data.copy()
        begin = here.copy()
        try:
            end, self.reason = self._descend(objective, point, here)
            if end.value > point.value:  # by steps of a fixed length
                here[...] = begin
                self.reason = f"line search failed: without one, the loss rose to {end.value:g}"
        finally:
            self.flat.data[...] = here
            self.evaluations = objective.evaluations
        return loss

    def _descend(self, objective: _Objective, point: Point, here: Array) -> tuple[Point, str]:
        """Move ``here`` to better points as long as there are any.

        Return the last point, and why it ended there.
        """
        self.iterations = 0
        while not (reason := self._enough(objective, point)):
            direction = self.pairs.direction(point.gradient)
            objective.turn(here, direction)
            start = Point(0.0, point.value, objective.slope(point.gradient), point.gradient)
            found = self._search(objective, start)
            if found is start:
                if self.pairs.is_empty:
                    return point, objective.why_failed(start)
                self.pairs.forget()  # and once more, along the steepest descent
                continue
            self.iterations += 1
            before = here.copy()
            here += found.at * direction
            step = here - before
            self.pairs.add(step, found.gradient - point.gradient)
            reason = self._too_little(float(np.abs(step).max()), abs(found.value - point.value))
            point = found
            if reason:
                break
        return point, reason

    def _search(self, objective: _Objective, start: Point) -> Point:
        """Return a better point on the line, or ``start``."""
        if not start.slope < 0:
            return start
        first = self.lr
        if self.pairs.is_empty:
            first *= min(1.0, 1 / float(np.sqrt(-start.slope)))
        if self.line_search_fn is None:
            found = objective.at(first)
            return found if np.isfinite(found.value) else start
        most = MOST_TRIALS
        if self.max_eval is not None:
            most = min(most, self.max_eval - objective.evaluations)
        return strong_wolfe(objective.at, start, first, most, objective.resolution())

    def _enough(self, objective: _Objective, point: Point) -> str:
        """Return why to end before another iteration; "" to go on."""
        largest = float(np.abs(point.gradient).max())
        if largest <= self.tolerance_grad:
            return (
                f"converged: no element of the gradient is larger than {largest:.3g} "
                f"(tolerance_grad {self.tolerance_grad:g})"
            )
        if self.iterations >= self.max_iter:
            return f"limit: {self.iterations} iterations (max_iter)"
        if self.max_eval is not None and objective.evaluations >= self.max_eval:
            return f"limit: {objective.evaluations} evaluations of the loss (max_eval)"
        return ""

    def _too_little(self, change: float, fall: float) -> str:
        """Return why to end after an iteration; "" to go on."""
        tolerance = f"(tolerance_change {self.tolerance_change:g})"
        if change <= self.tolerance_change:
            return f"converged: no weight changes by more than {change:.3g} {tolerance}"
        if fall < self.tolerance_change:
            return f"converged: the loss changes by {fall:.3g} in an iteration {tolerance}"
        return ""

    def __repr__(self) -> str:
        rate = f"{self.lr:g}" if self.schedule is None else repr(self.schedule)
        shown = [f"lr={rate}", f"max_iter={self.max_iter}", f"history_size={self.history_size}"]
        shown += [f"weight_decay={self.weight_decay:g}"] if self.weight_decay else []
        shown += [f"groups={len(self.states)}"] if len(self.states) > 1 else []
        return f"LBFGS({', '.join(shown)})"


class _Objective:
    """What is minimised: the closure's loss and the weight decay, as a function of the parameters.

    Parameters
    ----------
    optimizer, closure
        The optimizer, and what it was given.
    """

    def __init__(self, optimizer: LBFGS, closure: Closure) -> None:
        self.optimizer, self.closure = optimizer, closure
        self.evaluations = 0
        self.trials: list[tuple[float, float]] = []  # on the latest line: distances and values

    def first(self) -> tuple[float, Point]:
        """Compute the loss and the point where a step begins; count the step.

        Raises FloatingPointError if they are not finite.
        """
        loss, point = self._compute()
        if not np.isfinite(loss):
            raise FloatingPointError(f"LBFGS: the loss is {loss}; no parameter was changed")
        self.optimizer.count_step()
        return loss, point

    def turn(self, here: Array, direction: Array) -> None:
        """Choose a line: from this point in this direction."""
        self._here, self._direction = here, direction
        self.trials = []

    def slope(self, gradient: Array) -> float:
        """Return the slope along the line where this is the gradient."""
        return float(kernels.dot(gradient, self._direction))

    def resolution(self) -> float:
        """Return the distance along the line that no weight can tell from none."""
        largest, change = (float(np.abs(x).max()) for x in (self._here, self._direction))
        return float(np.finfo(self._here.dtype).eps) / 2 * largest / change

    def at(self, distance: float) -> Point:
        """Compute a point of the line."""
        np.add(self._here, distance * self._direction, out=self.optimizer.flat.data)
        try:
            _, point = self._compute()
        except FloatingPointError:  # as closures raise whose loss is not finite
            point = Point(distance, np.inf, 0.0, self.optimizer.flat.grad.copy())
        slope = self.slope(point.gradient)
        value = point.value if np.isfinite(point.value) and np.isfinite(slope) else np.inf
        self.trials.append((distance, value))
        return Point(distance, value, slope, point.gradient)

    def _compute(self) -> tuple[float, Point]:
        """Compute the loss, and value and gradient of the objective, at the parameters."""
        self.evaluations += 1
        loss = self.closure()
        try:
            loss = float(loss)
        except (TypeError, ValueError):
            raise TypeError(f"LBFGS: the closure must return the loss, got {loss!r}") from None
        flat, value = self.optimizer.flat, loss
        gradient = flat.grad.copy()
        for group in self.optimizer.groups:
            if decay := group["weight_decay"]:
                w = flat.data[group.part]
                value += decay / 2 * float(kernels.dot(w, w))
                gradient[group.part] += decay * w
        return loss, Point(0.0, value, 0.0, gradient)

    def why_failed(self, start: Point) -> str:
        """Say why there is no better point on the line of steepest descent."""
        if not self.trials:
            return f"not finite: the slope of the loss is {start.slope:g}"
        distances, values = np.array(self.trials).T
        changed = values[values != start.value]
        if len(changed) and not np.isfinite(changed).any():
            return (
                f"not finite: so are the loss or its gradient at all {len(changed)} trials along "
                f"the direction of descent that change the loss {start.value:g}"
            )
        resolution = np.finfo(self.optimizer.flat.dtype).eps * max(abs(start.value), 1e-300)
        if (np.abs(values - start.value) <= ROUNDING * resolution).all():
            return (
                f"plateau: the loss {start.value:g} changes along the direction of descent by no "
                "more than it is rounded"
            )
        return (
            f"line search failed: none of {len(values)} trials along the direction of descent, "
            f"down to {distances.min():.3g} of it, has lowered the loss {start.value:g}; its "
            "gradient may be wrong, change from call to call, or be lost in rounding"
        )
