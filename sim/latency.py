"""How long a message travels: distributions, each drawing from its link's own generator."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

Sampler = Callable[[], float]
"""Draws one latency in seconds."""


class Latency(Protocol):
    """A distribution of one-way latencies."""

    def sampler(self, entropy: random.Random) -> Sampler:
        """A function that draws from this distribution with ``entropy``."""
        ...


@dataclass(frozen=True, slots=True)
class Constant:
    """Always ``seconds``; 0 delivers within the same instant."""

    seconds: float

    def sampler(self, entropy: random.Random) -> Sampler:
        """Draws nothing."""
        seconds = self.seconds
        return lambda: seconds


@dataclass(frozen=True, slots=True)
class Uniform:
    """Evenly between two bounds in seconds."""

    minimum_s: float
    maximum_s: float

    def sampler(self, entropy: random.Random) -> Sampler:
        """One draw per latency."""
        draw, low, span = entropy.random, self.minimum_s, self.maximum_s - self.minimum_s
        return lambda: low + span * draw()


@dataclass(frozen=True, slots=True)
class Skewed:
    """Mostly near the minimum, seldom near the maximum (a squared uniform draw), in seconds."""

    minimum_s: float
    maximum_s: float

    def sampler(self, entropy: random.Random) -> Sampler:
        """One draw per latency."""
        draw, low, span = entropy.random, self.minimum_s, self.maximum_s - self.minimum_s

        def sample() -> float:
            fraction = draw()
            return low + span * fraction * fraction

        return sample


@dataclass(frozen=True, slots=True)
class LogNormal:
    """A long tail: half of the draws lie below ``median_s``, none above ``ceiling_s``."""

    median_s: float
    sigma: float
    ceiling_s: float

    def sampler(self, entropy: random.Random) -> Sampler:
        """Uses ``lognormvariate``: a varying number of draws per latency."""
        from math import log

        mean, sigma, ceiling = log(self.median_s), self.sigma, self.ceiling_s
        draw = entropy.lognormvariate
        return lambda: min(draw(mean, sigma), ceiling)


LOCAL_NETWORK = Skewed(0.0002, 0.001)
"""The default: a data centre's network, 0.2 to 1 ms."""
LOOPBACK = Constant(0.00002)
"""A host talking to itself."""
