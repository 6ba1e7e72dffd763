"""Finds what hides nondeterminism: clocks, entropy, threads, hashes, and imports by text.

A banned name counts wherever it is read, called or handed on, under whatever name it was imported.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

from harness.tidy import rules


def banned_uses(tree: ast.Module) -> Iterator[tuple[str, int]]:
    """Every (banned name, line) of a file."""
    imported = _imported(tree)
    in_hash_methods = _lines_of_hash_methods(tree)
    for node in ast.walk(tree):
        if not isinstance(node, (ast.Attribute, ast.Name)) or not isinstance(node.ctx, ast.Load):
            continue
        text = ast.unparse(node)
        root, dot, rest = text.partition(".")
        name = imported.get(root, root) + dot + rest
        if name == "hash" and node.lineno in in_hash_methods:
            continue
        if name in rules.BANNED_USES or name.startswith(rules.BANNED_MODULES):
            yield name, node.lineno


def uses_of(tree: ast.Module, name: str) -> Iterator[int]:
    """Lines that read one dotted name, under whatever name it was imported."""
    imported = _imported(tree)
    for node in ast.walk(tree):
        if isinstance(node, (ast.Attribute, ast.Name)):
            root, dot, rest = ast.unparse(node).partition(".")
            if imported.get(root, root) + dot + rest == name:
                yield node.lineno


def _imported(tree: ast.Module) -> dict[str, str]:
    """Local name → what it was imported as."""
    found: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.asname is not None:
                    found[alias.asname] = alias.name
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            for alias in node.names:
                found[alias.asname or alias.name] = f"{node.module}.{alias.name}"
    return found


def _lines_of_hash_methods(tree: ast.Module) -> set[int]:
    return {
        line
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef) and node.name == "__hash__"
        for line in range(node.lineno, (node.end_lineno or node.lineno) + 1)
    }
