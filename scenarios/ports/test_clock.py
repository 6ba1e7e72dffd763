"""The contract of ``storage.ports.Clock``, on every implementation."""

from __future__ import annotations

import asyncio

from scenarios.ports.lab import Lab

YEAR_US = 365 * 24 * 3600 * 1_000_000


async def test_wall_time_is_of_our_time(lab: Lab) -> None:
    """Microseconds since 1970, between 2020 and 2100; not the loop's own seconds."""
    now_us = lab.clock().wall_us()

    assert isinstance(now_us, int)
    assert 50 * YEAR_US < now_us < 130 * YEAR_US
    assert abs(now_us / 1e6 - asyncio.get_running_loop().time()) > 1e8


async def test_wall_time_goes_on_with_the_loop(lab: Lab) -> None:
    """A healthy clock neither stands still nor runs away."""
    clock = lab.clock()
    loop = asyncio.get_running_loop()
    before_us, before_s = clock.wall_us(), loop.time()

    await asyncio.sleep(0.05)

    passed_us = clock.wall_us() - before_us
    assert abs(passed_us - (loop.time() - before_s) * 1e6) < 200_000
    assert passed_us > 40_000
