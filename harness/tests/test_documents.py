"""What the documents say of interfaces is what the code does: names are compared both ways."""

from __future__ import annotations

import ast
import dataclasses
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from harness.backend import NodeSpec
from harness.topology import THREE_SAFEKEEPERS
from harness.verdict import RunSettings
from harness.world import World
from real.postgres.node import PostgresOptions
from sim.runner import SimRunner
from storage.compute import commands
from storage.compute.options import (
    PageServiceOptions,
    ReadonlyOptions,
    StandbyOptions,
    WalgenOptions,
)
from storage.http.client import call
from storage.pageserver.options import PageserverOptions
from storage.pageserver.page_service import PageService
from storage.roles import ROLES
from storage.safekeeper.commands import parse_command
from storage.safekeeper.options import SafekeeperOptions
from storage.walproposer.sidecar import SidecarOptions

ROOT = Path(__file__).resolve().parents[2]
ARCHITECTURE = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
PACKAGES = ("harness", "sim", "real", "reports", "scenarios", "storage")
DOCUMENTS = [
    ROOT / "Makefile",
    *sorted(ROOT.glob("*.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
    *sorted((ROOT / ".github").rglob("*.yml")),
]


def section(title: str) -> str:
    """One section of ARCHITECTURE.md, its heading left out."""
    found = re.search(rf"^## {re.escape(title)}.*?\n(.*?)(?=^## |\Z)", ARCHITECTURE, re.M | re.S)
    assert found is not None, f"ARCHITECTURE.md has no section {title!r}"
    return found[1]


def item(text: str, first_word: str) -> str:
    """The bullet of a list that begins with a word."""
    found = re.search(rf"^\* {first_word}\b(.*?)(?=^\* |\Z)", text, re.M | re.S)
    assert found is not None, f"no item {first_word!r}"
    return found[1]


def code_words(text: str) -> set[str]:
    """Every word inside of backticks."""
    return {word for piece in re.findall(r"`([^`]*)`", text) for word in re.findall(r"\w+", piece)}


def fields(*shapes: type[Any]) -> set[str]:
    names = {field.name for shape in shapes for field in dataclasses.fields(shape)}
    return names - {"pages"}


def sources() -> Iterator[tuple[Path, str]]:
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            if "tests" not in path.parts:
                yield path, path.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("role", "options"),
    [
        ("safekeeper", fields(SafekeeperOptions)),
        ("pageserver", fields(PageserverOptions)),
        (
            "walgen, readonly, standby",
            fields(WalgenOptions, ReadonlyOptions, StandbyOptions, PageServiceOptions),
        ),
        ("walproposer", fields(SidecarOptions)),
        ("postgres", fields(PostgresOptions)),
    ],
)
def test_every_option_of_a_role_is_named_and_no_other(role: str, options: set[str]) -> None:
    text = item(section("Node options"), role)
    listed = re.sub(r"\(`[^`]*\.py`\)", "", text).partition("There is no")[0]
    named = code_words(re.sub(r'`"[^`]*"`', "", listed))

    assert named == options


def test_the_tree_of_storage_is_complete() -> None:
    table = section("The tree of `storage/`")
    listed = {
        word.rstrip("/")
        for cell in re.findall(r"^\| ((?:`[^`]+`,? ?)+) \|", table, re.M)
        for word in re.findall(r"[\w./]+", cell)
    }
    present = {
        path.name
        for path in (ROOT / "storage").iterdir()
        if path.name not in ("__init__.py", "__pycache__", "tests")
        and (path.suffix == ".py" or path.is_dir())
    }

    assert {name for name in listed if "/" not in name} == present
    assert all((ROOT / "storage" / name).exists() for name in listed)


def test_events_that_the_system_reports_are_listed_with_their_fields() -> None:
    text = section("Events")
    system = text.partition("Worlds add")[0]
    listed = dict(re.findall(r"`(\w+)`\s+\(`([^`]+)`\)", system))
    reported: dict[str, set[str]] = {}
    for path, source in sources():
        if path.is_relative_to(ROOT / "storage"):
            for node in ast.walk(ast.parse(source)):
                if isinstance(node, ast.Call) and ast.unparse(node.func) == "emit":
                    assert isinstance(node.args[0], ast.Constant), f"{path}: {ast.unparse(node)}"
                    kind = str(node.args[0].value)
                    names = {each.arg or "tenant timeline" for each in node.keywords}
                    reported.setdefault(kind, set()).update(" ".join(names).split())

    assert {kind: set(names.split()) for kind, names in listed.items()} == reported


def test_environment_variables_are_listed() -> None:
    read = {
        name
        for path, source in sources()
        for name in re.findall(r"SEAWALL_[A-Z0-9]+(?:_[A-Z0-9]+)*(?![*_A-Z0-9])", source)
    } - {"SEAWALL_S3"}
    for name in ("BUCKET", "ACCESS_KEY", "SECRET_KEY", "REGION"):
        read.add(f"SEAWALL_S3_{name}")

    assert code_words(section("Environment variables")) == read


def test_commands_of_every_server_are_listed() -> None:
    words = code_words(section("libpq commands"))

    assert set(PageService(None, None)._commands) <= words  # type: ignore[arg-type]
    assert set(commands._PARSERS) <= words
    for command in re.findall(r"^\| safekeeper \| (.*?) \|", section("libpq commands"), re.M):
        for text in re.findall(r"`([A-Z][^`]*)`", command):
            example = re.sub(r"0/X", "0/16", re.sub(r"'N'", "'7'", text))
            parse_command(re.sub(r"\[(.*?)\]", r"\1", example))


def collect(*words: str) -> str:
    listing = subprocess.run(
        [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider", *words],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert listing.returncode == 0, listing.stdout + listing.stderr
    return listing.stdout


def test_scenarios_that_documents_name_exist() -> None:
    known = {
        re.sub(r"(sim|real)-(walgen|postgres)-?", "", line).replace("[]", "").replace("-]", "]")
        for line in collect("scenarios").splitlines()
    }
    named = {
        node_id
        for path in DOCUMENTS
        for node_id in re.findall(
            r"scenarios/test_\w+\.py::\w+(?:\[[^\]]*\])?", path.read_text(encoding="utf-8")
        )
    }

    assert named
    assert named - known == set()


def test_files_that_documents_name_exist() -> None:
    named = {
        (path.relative_to(ROOT).as_posix(), name)
        for path in DOCUMENTS
        for name in re.findall(
            rf"\b((?:{'|'.join(PACKAGES)}|docs)/[\w/]+\.(?:py|md|json))\b",
            path.read_text(encoding="utf-8"),
        )
    }

    assert named
    assert {each for each in named if not (ROOT / each[1]).exists()} == set()


async def interfaces(world: World, found: dict[str, Any]) -> None:
    """Every role's own description of itself, and what a run leaves in S3 and the broker."""
    cluster = await world.start(THREE_SAFEKEEPERS)
    endpoint = await cluster.endpoint("main")
    lsn = await endpoint.put(1, "a")
    await cluster.caught_up(cluster.pageserver(0), endpoint.timeline)
    await cluster.pageserver(0).checkpoint(endpoint.timeline)
    replica = await cluster.replica("replica", lsn, of=endpoint)
    options = {**endpoint.nodes[0].spec.options, "proposer_id": 7}
    await endpoint.stop()
    await world.backend.spawn(NodeSpec("wp", "walproposer", options))
    await world.backend.wait_ready("wp", within_s=10)
    ports = {"sk0": 7676, "ps0": 9898, "replica": 5480, "wp": 5480}
    for name, port in ports.items():
        found[name] = (await call("GET", name, port, "/v1/openapi.json"))["paths"]
    found["objects"] = [info.key for info in await world.backend.admin_objects().list("")]
    found["broker"] = list(await world.backend.admin_broker().get(""))
    found["tenant"], found["timeline"] = endpoint.timeline
    await world.backend.kill("wp")
    await replica.stop()
    await endpoint.start()


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    found: dict[str, Any] = {}
    settings = RunSettings("sim", "walgen", 1)
    result = SimRunner(ROLES).run(lambda world: interfaces(world, found), settings)
    if result.error is not None:
        raise result.error
    return found


@pytest.mark.parametrize(
    ("node", "role"),
    [
        ("sk0", "safekeeper"),
        ("ps0", "pageserver"),
        ("replica", "walgen, readonly"),
        ("wp", "walproposer"),
    ],
)
def test_every_route_is_listed_and_no_other(found: dict[str, Any], node: str, role: str) -> None:
    text = section("HTTP APIs")
    route = re.compile(r"\b(GET|PUT|POST|DELETE) (/[\w/{}.]+|…[\w/{}]*)")
    listed = {
        f"{method} /v1" + path.replace("…", "/tenant/{tenant_id}/timeline/{timeline_id}")
        for part in (text.partition("\n* ")[0], item(text, role))
        for method, path in route.findall(part)
    }
    served = {
        f"{method.upper()} {path}"
        for path, operations in found[node].items()
        for method in operations
    }

    assert listed == served


def test_what_is_in_the_bucket_and_the_broker_is_described(found: dict[str, Any]) -> None:
    text = section("Broker keys and S3 layout")
    patterns = [
        re.sub(r"\\{(\w+)\\}", r"[^/]+", re.escape(pattern))
        for pattern in re.findall(r"`((?:seawall|pageserver|safekeeper)/[^`]+)`", text)
    ]
    keys = [*found["objects"], *found["broker"]]

    assert found["objects"]
    assert found["broker"]
    strangers = [key for key in keys if not any(re.fullmatch(p, key) for p in patterns)]
    assert strangers == []
    unused = [p for p in patterns if not any(re.fullmatch(p, key) for key in keys)]
    assert len(unused) == 2, "this run fills no WAL segment"
