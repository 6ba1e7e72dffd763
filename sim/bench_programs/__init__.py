"""The programs that the kernel's benchmarks run, here and in other simulators.

They import asyncio alone, so that an interpreter without this project's packages can run them.
"""
