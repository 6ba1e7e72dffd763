"""The house numbers and tables (ARCHITECTURE.md, "Import rules"; the house style)."""

from __future__ import annotations

LINES_PER_FILE = 400
LINES_PER_FUNCTION = 60
LINES_PER_FUNCTION_P90 = 30
LINES_PER_MODULE_DOCSTRING = 15
PARAMETERS = 5
COLUMNS = 100

ROOT_MODULES = ("conftest.py",)
"""Modules beside the packages."""

PACKAGES = ("harness", "sim", "real", "scenarios", "storage", "reports")

CONTRACTS = (
    "storage.ports",
    "storage.errors",
    "storage.lsn",
    "storage.ids",
    "storage.node",
    "storage.events",
    "storage.marks",
    "storage.runtimes",
    "storage.failpoints",
)
CLIENTS = ("storage.wire", "storage.http", "storage.wal")

MAY_IMPORT: dict[str, tuple[str, ...]] = {
    "storage": ("storage",),
    "sim": ("sim", "harness", *CONTRACTS),
    "real": ("real", "harness", *CONTRACTS, *CLIENTS),
    "harness": ("harness", *CONTRACTS, *CLIENTS),
    "scenarios": ("scenarios", "harness", *CONTRACTS),
    "reports": ("reports", "harness.verdict", "harness.coverage"),
}
"""Prefixes of our own modules that each package may import."""

LOADS_ROLES = ("real/node_main.py",)
"""Modules outside ``storage`` that may import all of it."""

BUG_BANK = ("scenarios/bugs/",)
"""Scenario folders that put bugs back into the real code: they may import all of ``storage``, and
what they put there is node code, which may sleep."""

BOTH_WORLDS = ("scenarios/ports/",)
"""Scenario folders that compare implementations, and so import both."""

STORAGE_NEVER = ("simpy", "pytest", "psycopg2", "moto", "random", "time", "datetime", "threading")
"""Third-party and standard modules that node code must not import at run time."""

LAYERS = (
    (
        "storage.lsn",
        "storage.ids",
        "storage.errors",
        "storage.ports",
        "storage.events",
        "storage.runtimes",
    ),
    (
        "storage.marks",
        "storage.node",
        "storage.failpoints",
        "storage.durable",
        "storage.checked_json",
        "storage.tasks",
        "storage.registration",
        "storage.listener",
        "storage.log",
        "storage.life",
        "storage.services",
    ),
    ("storage.wire", "storage.http", "storage.wal"),
    ("storage.metrics",),
    ("storage.kv", "storage.consensus"),
    ("storage.safekeeper", "storage.walproposer", "storage.pageserver"),
    ("storage.compute",),
    ("storage.roles",),
)
"""Inside storage, a module imports only its own layer's package or lower layers."""

BANNED_USES = frozenset(
    {
        "asyncio.as_completed",
        "asyncio.to_thread",
        "datetime.date.today",
        "datetime.datetime.now",
        "datetime.datetime.today",
        "datetime.datetime.utcnow",
        "hash",
        "importlib.import_module",
        "os.getrandom",
        "os.urandom",
        "socket.socket",
        "threading.Thread",
        "time.monotonic",
        "time.monotonic_ns",
        "time.perf_counter",
        "time.perf_counter_ns",
        "time.process_time",
        "time.sleep",
        "time.time",
        "time.time_ns",
        "uuid.uuid1",
        "uuid.uuid4",
        *(
            f"random.{name}"
            for name in (
                "SystemRandom", "choice", "choices", "getrandbits", "randbytes", "randint",
                "random", "randrange", "sample", "seed", "shuffle", "uniform",
            )
        ),
    }
)  # fmt: skip
"""Hidden nondeterminism: banned in storage, sim and scenarios, under any name."""

BANNED_MODULES = ("secrets.", "concurrent.futures.", "multiprocessing.")
"""Of these modules everything is."""

OUTSIDE_OF_RUNS = ("sim/bench", "sim/runner.py", "sim/guard.py", *BOTH_WORLDS)
"""Files that measure runs or guard them, and so may use what is banned inside of runs."""

BANNED_NAMES = frozenset(
    {"common", "commons", "helper", "helpers", "manager", "managers", "misc", "util", "utils"}
)
"""Words that say nothing in the name of a folder, module or class."""
