"""Finds offences against :mod:`harness.tidy.rules` in the tracked Python files."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from harness.tidy import rules
from harness.tidy.bans import banned_uses, uses_of
from harness.tidy.sets import iterated_sets

FunctionNode = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True, order=True)
class Offence:
    """One broken rule. ``key`` names rule, file and thing, without line numbers."""

    rule: str
    path: str
    thing: str
    detail: str

    @property
    def key(self) -> str:
        """What an exception list names."""
        return f"{self.rule} {self.path} {self.thing}".rstrip()


@dataclass(frozen=True)
class Source:
    """A parsed file; ``path`` is relative to the repository, with ``/``."""

    path: str
    text: str
    tree: ast.Module

    @property
    def package(self) -> str:
        """The top-level folder."""
        return self.path.split("/")[0]

    @property
    def is_test(self) -> bool:
        """Whether the file is a unit test."""
        return "/tests/" in self.path

    @property
    def module(self) -> str:
        """The dotted name."""
        return self.path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def sources(root: Path) -> Iterator[Source]:
    """The modules of the root and every Python file of our packages, in order of path."""
    paths = [root / name for name in rules.ROOT_MODULES]
    for package in rules.PACKAGES:
        paths += sorted((root / package).rglob("*.py"))
    for path in paths:
        text = path.read_text(encoding="utf-8")
        yield Source(path.relative_to(root).as_posix(), text, ast.parse(text))


def offences(source: Source) -> Iterator[Offence]:
    """Every offence of one file."""
    yield from _size_offences(source)
    yield from _name_offences(source)
    yield from _import_offences(source)
    yield from _ban_offences(source)
    if not source.is_test:
        yield from _docstring_offences(source)


def functions(source: Source) -> Iterator[tuple[str, FunctionNode]]:
    """Every function of a file with its dotted name, nested ones included."""

    def walk(node: ast.AST, prefix: str) -> Iterator[tuple[str, FunctionNode]]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef)):
                yield f"{prefix}{child.name}", child
                yield from walk(child, f"{prefix}{child.name}.")
            elif isinstance(child, ast.ClassDef):
                yield from walk(child, f"{prefix}{child.name}.")
            else:
                yield from walk(child, prefix)

    yield from walk(source.tree, "")


def function_lines(node: FunctionNode) -> int:
    """Length of a function in lines, without its docstring."""
    assert node.end_lineno is not None
    length = node.end_lineno - node.lineno + 1
    first = node.body[0]
    if ast.get_docstring(node, clean=False) is not None:
        assert first.end_lineno is not None
        length -= first.end_lineno - first.lineno + 1
    return length


def _size_offences(source: Source) -> Iterator[Offence]:
    lines = source.text.splitlines()
    if len(lines) > rules.LINES_PER_FILE:
        yield Offence("file-size", source.path, "", f"{len(lines)} lines")
    for number, line in enumerate(lines, 1):
        if len(line) > rules.COLUMNS:
            yield Offence("columns", source.path, str(number), f"{len(line)} columns")
    for name, node in functions(source):
        if function_lines(node) > rules.LINES_PER_FUNCTION:
            yield Offence("function-size", source.path, name, f"{function_lines(node)} lines")
        if not source.is_test and len(parameters(node)) > rules.PARAMETERS:
            yield Offence("parameters", source.path, name, ", ".join(parameters(node)))


def parameters(node: FunctionNode) -> list[str]:
    """Names of what a caller passes, itself not counted."""
    arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
    return [each.arg for each in arguments if each.arg not in ("self", "cls")]


def _name_offences(source: Source) -> Iterator[Offence]:
    words = re.split(r"[/_]", source.path.removesuffix(".py"))
    if rules.BANNED_NAMES.intersection(words):
        yield Offence("module-name", source.path, "", "says nothing")
    for node in ast.walk(source.tree):
        if isinstance(node, ast.ClassDef):
            words = re.findall(r"[A-Z][a-z]*", node.name)
            if rules.BANNED_NAMES.intersection(word.lower() for word in words):
                yield Offence("class-name", source.path, node.name, "says nothing")


def _imports(source: Source) -> Iterator[str]:
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                yield "." * node.level + (node.module or "")
                continue
            assert node.module is not None, "only a relative import names no module"
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                yield whole if node.module in rules.PACKAGES else node.module


def _is_ours(module: str) -> bool:
    return module.split(".")[0] in rules.PACKAGES


def _within(module: str, prefix: str) -> bool:
    return module == prefix or module.startswith(prefix + ".")


def _import_offences(source: Source) -> Iterator[Offence]:
    modules = sorted(set(_imports(source)))
    for module in modules:
        if module.startswith("."):
            yield Offence("import", source.path, module, "relative: the table cannot see it")
        elif not source.is_test and ".tests." in f"{module}." and _is_ours(module):
            yield Offence("import", source.path, module, "what runs never imports a test")
    if source.is_test or source.path in rules.LOADS_ROLES or source.path in rules.ROOT_MODULES:
        return
    if source.path.startswith(rules.BOTH_WORLDS):
        return
    for module in modules:
        top = module.split(".")[0]
        if top in rules.PACKAGES:
            allowed = rules.MAY_IMPORT[source.package]
            if source.path.startswith(rules.BUG_BANK):
                allowed = (*allowed, "storage")
            if not any(_within(module, prefix) for prefix in allowed):
                yield Offence("import", source.path, module, "not allowed by the import table")
            elif source.package == "storage":
                yield from _layer_offences(source, module)
        elif (
            source.package == "storage"
            and top in rules.STORAGE_NEVER
            and top not in _typing_only(source)
        ):
            yield Offence("import", source.path, module, "never in storage")


def _typing_only(source: Source) -> set[str]:
    """Modules imported for annotations alone: used nowhere but as ``random.Random``."""
    uses: dict[str, set[str]] = {}
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            uses.setdefault(node.value.id, set()).add(node.attr)
    return {name for name, attributes in uses.items() if attributes <= {"Random"}}


def _layer(module: str) -> int:
    for index, packages in enumerate(rules.LAYERS):
        if any(_within(module, package) for package in packages):
            return index
    return -1


def _layer_offences(source: Source, module: str) -> Iterator[Offence]:
    own, other = _layer(source.module), _layer(module)
    if own < 0 or other < 0:
        return
    same_package = source.module.split(".")[:2] == module.split(".")[:2]
    if other > own or (other == own and own > 1 and not same_package):
        yield Offence("layer", source.path, module, "upward or sideways in storage")


def _ban_offences(source: Source) -> Iterator[Offence]:
    if source.package not in ("storage", "sim", "scenarios") or source.is_test:
        return
    if source.path.startswith(rules.OUTSIDE_OF_RUNS):
        return
    for name, line in banned_uses(source.tree):
        yield Offence("ban", source.path, name, f"line {line}")
    for iterated in iterated_sets(source.tree):
        thing = ast.unparse(iterated)
        yield Offence("set-order", source.path, thing, f"line {iterated.lineno}: sort it")
    if source.package == "scenarios" and not source.path.startswith(rules.BUG_BANK):
        for line in uses_of(source.tree, "asyncio.sleep"):
            yield Offence("sleep", source.path, str(line), "use eventually or an event")


def _docstring_offences(source: Source) -> Iterator[Offence]:
    text = ast.get_docstring(source.tree)
    if text is None:
        if source.text.strip():
            yield Offence("docstring", source.path, "", "module has none")
    elif len(text.splitlines()) > rules.LINES_PER_MODULE_DOCSTRING:
        yield Offence("module-docstring", source.path, "", f"{len(text.splitlines())} lines")
    yield from _missing_docstrings(source, source.tree, "")


def _missing_docstrings(source: Source, parent: ast.AST, prefix: str) -> Iterator[Offence]:
    for node in ast.iter_child_nodes(parent):
        if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            continue
        if node.name.startswith("_"):
            continue
        if ast.get_docstring(node) is None and not _is_overload(node):
            yield Offence("docstring", source.path, f"{prefix}{node.name}", "has none")
        if isinstance(node, ast.ClassDef):
            yield from _missing_docstrings(source, node, f"{prefix}{node.name}.")


def _is_overload(node: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) -> bool:
    names = {ast.unparse(decorator) for decorator in node.decorator_list}
    return bool(
        names & {"overload", "typing.overload"} or any(n.endswith(".setter") for n in names)
    )
