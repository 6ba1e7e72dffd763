"""The system under test: a disaggregated Postgres storage, written once as plain asyncio.

Nothing here knows whether it runs in the simulation or as an OS process: the network is
asyncio itself, everything else arrives through :mod:`storage.ports`.
"""
