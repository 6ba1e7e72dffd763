"""Role name → node main: everything a world can run."""

from __future__ import annotations

from collections.abc import Mapping

from storage.compute import readonly, standby, walgen
from storage.node import NodeMain
from storage.pageserver import node as pageserver
from storage.safekeeper import node as safekeeper
from storage.walproposer import sidecar

ROLES: Mapping[str, NodeMain] = {
    "safekeeper": safekeeper.main,
    "pageserver": pageserver.main,
    "walgen": walgen.main,
    "readonly": readonly.main,
    "standby": standby.main,
    "walproposer": sidecar.main,
}
