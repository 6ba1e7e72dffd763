"""Simulated wall clocks: off, drifting, jumping, and never the loop's time."""

import asyncio

import pytest

import sim
from sim.clock import DEFAULT_EPOCH_US, ClockOptions, SimClock


def run(test, seed=0, options=None, name="clock"):
    async def main():
        loop = asyncio.get_running_loop()
        clock = SimClock(loop, loop.seeds.child(name), options or ClockOptions())
        return await test(clock, loop)

    return sim.run(main, seed=seed)


EXACT = ClockOptions(offset_us_max=0, drift_ppm_max=0.0)


def test_an_exact_clock_follows_the_loop():
    async def test(clock, loop):
        assert clock.wall_us() == DEFAULT_EPOCH_US
        await asyncio.sleep(1.5)
        assert clock.wall_us() == DEFAULT_EPOCH_US + 1_500_000

    run(test, options=EXACT)


def test_clocks_of_two_nodes_differ_within_their_bounds():
    async def test(clock, loop):
        first_us = clock.wall_us()
        await asyncio.sleep(100_000)
        return first_us - DEFAULT_EPOCH_US, clock.wall_us() - first_us - 10**11

    options = ClockOptions(offset_us_max=1000, drift_ppm_max=20.0)
    drawn = [run(test, options=options, name=f"clock/{number}") for number in range(20)]

    assert all(abs(offset) <= 1000 for offset, _ in drawn)
    assert all(abs(gained) <= 2_000_001 for _, gained in drawn)
    assert len(set(drawn)) == 20


def test_a_jump_goes_either_way_and_is_counted():
    async def test(clock, loop):
        clock.jump(5_000_000)
        assert clock.wall_us() == DEFAULT_EPOCH_US + 5_000_000
        clock.jump(-7_000_000)
        assert clock.wall_us() == DEFAULT_EPOCH_US - 2_000_000
        assert clock.effects["clock_jumps"] == 2

    run(test, options=EXACT)


def test_a_changed_drift_does_not_jump():
    async def test(clock, loop):
        await asyncio.sleep(10)
        before_us = clock.wall_us()
        clock.drift(100_000.0)
        assert clock.wall_us() == before_us
        await asyncio.sleep(10)
        assert clock.wall_us() == before_us + 11_000_000
        clock.drift(-500_000.0)
        await asyncio.sleep(10)
        assert clock.wall_us() == before_us + 16_000_000
        with pytest.raises(ValueError, match="stops the clock"):
            clock.drift(-1e6)

    run(test, options=EXACT)


def test_impossible_bounds_are_refused():
    with pytest.raises(ValueError, match="zero or more"):
        ClockOptions(offset_us_max=-1)


def test_wall_time_is_far_from_loop_time():
    async def test(clock, loop):
        assert abs(clock.wall_us() / 1e6 - loop.time()) > 1e9

    run(test)
