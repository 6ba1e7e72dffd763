"""Every fault there is, by name: one list for every world."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from harness.errors import HarnessError
from harness.faulting.admin import ADMIN_FAULTS
from harness.faulting.broker import BROKER_FAULTS
from harness.faulting.clients import CLIENT_FAULTS
from harness.faulting.clock import CLOCK_FAULTS
from harness.faulting.compute import COMPUTE_FAULTS
from harness.faulting.disk import DISK_FAULTS
from harness.faulting.fault import Fault
from harness.faulting.network import NETWORK_FAULTS
from harness.faulting.object_store import OBJECT_STORE_FAULTS
from harness.faulting.places import PLACE_FAULTS
from harness.faulting.process import PROCESS_FAULTS

FAULTS: Mapping[str, Fault] = MappingProxyType(
    {
        fault.name: fault
        for family in (
            NETWORK_FAULTS,
            PROCESS_FAULTS,
            DISK_FAULTS,
            OBJECT_STORE_FAULTS,
            BROKER_FAULTS,
            CLOCK_FAULTS,
            COMPUTE_FAULTS,
            CLIENT_FAULTS,
            ADMIN_FAULTS,
            PLACE_FAULTS,
        )
        for fault in family
    }
)


def fault_of(name: str) -> Fault:
    """The fault of that name; ``HarnessError`` lists them if there is none."""
    try:
        return FAULTS[name]
    except KeyError:
        raise HarnessError(f"no fault {name!r}; there are: {', '.join(FAULTS)}") from None
