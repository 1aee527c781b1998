"""Shares of traffic as integers: SageMaker's weights are floats, Envoy's are integers with an exact total."""

from collections.abc import Sequence
from fractions import Fraction

from sluice.api.routes import WEIGHT_TOTAL


def shares(weights: Sequence[float | Fraction], total: int = WEIGHT_TOTAL) -> tuple[int, ...]:
    """The weights as integers that sum to `total`, by largest remainder (ties: the earlier one).

    Every weight above zero gets at least 1, however small its share; zero gets 0. All zero: all 0 (admission refuses
    it). The same weights always give the same integers."""
    exact = [Fraction(weight) for weight in weights]
    whole = sum(exact)
    if whole <= 0:
        return tuple(0 for _ in exact)
    parts = [part * total / whole for part in exact]
    floors = [max(int(part), 1) if part > 0 else 0 for part in parts]
    order = sorted(range(len(parts)), key=lambda i: (floors[i] - parts[i], i))
    left = total - sum(floors)
    step = 1 if left > 0 else -1
    # More than one round is needed only where many weights were lifted to 1.
    while left:
        for i in order if step > 0 else reversed(order):
            if left and parts[i] > 0 and floors[i] + step >= 1:
                floors[i] += step
                left -= step
    return tuple(floors)
