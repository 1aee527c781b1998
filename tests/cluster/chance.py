"""How likely a share of the answers is, exactly: a normal distribution calls too much wrong where a share is small."""

from math import exp, lgamma, log, log1p

RARE = 1e-7
"""What is less likely than this is not chance."""


def at_least(count: int, total: int, share: float) -> float:
    """The probability that, of so many answers that each fall to somebody with that share, this many or more do."""
    if count <= 0:
        return 1.0
    if count > total or share <= 0:
        return 0.0
    if share >= 1:
        return 1.0
    if count <= total * share:
        return 1.0 - at_least(total - count + 1, total, 1 - share)
    ways = lgamma(total + 1) - lgamma(count + 1) - lgamma(total - count + 1)
    term = exp(ways + count * log(share) + (total - count) * log1p(-share))
    found = 0.0
    for number in range(count, total + 1):  # beyond the mean each is less than the one before
        found += term
        term *= (total - number) / (number + 1) * share / (1 - share)
        if term < found * 1e-12:
            break
    return found


def is_too_much(count: int, total: int, share: float, *, under_way: int) -> bool:
    """Whether so many answers, of a total that callers got one after another, are more than the share gives. As many as
    `under_way` calls had begun before the first answer that is counted, or end after the last."""
    return at_least(count, total + under_way, share) < RARE


def is_too_little(count: int, total: int, share: float, *, under_way: int) -> bool:
    """The same for too few."""
    return at_least(total - count, total + under_way, 1 - share) < RARE
