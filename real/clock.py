"""The system's wall clock."""

from __future__ import annotations

import time


class SystemClock:
    """Wall time of the operating system; implements ``storage.ports.Clock``."""

    def wall_us(self) -> int:
        """Microseconds since the Unix epoch."""
        return time.time_ns() // 1000
