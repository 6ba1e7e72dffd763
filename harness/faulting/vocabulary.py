"""Every fault there is, by name: one list for every world."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from harness.errors import HarnessError
from harness.faulting.admin import ADMIN_FAULTS
from harness.faulting.compute import COMPUTE_FAULTS
from harness.faulting.fault import Fault
from harness.faulting.network import NETWORK_FAULTS
from harness.faulting.process import PROCESS_FAULTS
from harness.faulting.services import SERVICE_FAULTS

FAULTS: Mapping[str, Fault] = MappingProxyType(
    {
        fault.name: fault
        for family in (
            NETWORK_FAULTS,
            PROCESS_FAULTS,
            SERVICE_FAULTS,
            COMPUTE_FAULTS,
            ADMIN_FAULTS,
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
