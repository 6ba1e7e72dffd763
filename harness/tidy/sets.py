"""Finds iteration over sets: their order is that of hashes, so two runs of one seed may differ.

What is a set is guessed from one file alone: literals, calls of ``set`` and ``frozenset``, set
operators on those, and names and attributes that are annotated or assigned as sets anywhere in it.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

_MAKERS = ("set", "frozenset")
_TYPES = ("set", "frozenset", "Set", "AbstractSet", "MutableSet")
_OPERATORS = (ast.BitOr, ast.BitAnd, ast.Sub, ast.BitXor)
_METHODS = ("union", "intersection", "difference", "symmetric_difference", "copy")
_ORDERED_BY = ("list", "tuple", "iter", "enumerate", "zip", "map", "filter", "reversed")
_ORDERLESS = ("sorted", "any", "all", "sum", "min", "max", "len", "set", "frozenset")


def iterated_sets(tree: ast.Module) -> Iterator[ast.expr]:
    """Every expression that is iterated in an order that may matter, and looks like a set."""
    known = _Known(tree)
    harmless = {
        id(argument)
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and ast.unparse(node.func) in _ORDERLESS
        for argument in node.args
        if isinstance(argument, ast.GeneratorExp)
    }
    for node in ast.walk(tree):
        for candidate in _iterated_by(node) if id(node) not in harmless else ():
            if known.is_set(candidate):
                yield candidate


def _iterated_by(node: ast.AST) -> Iterator[ast.expr]:
    match node:
        case ast.For() | ast.AsyncFor():
            yield node.iter
        case ast.ListComp() | ast.GeneratorExp() | ast.DictComp():
            # Not of a set comprehension: what it makes has no order either.
            yield from (generator.iter for generator in node.generators)
        case ast.Starred():
            yield node.value
        case ast.Call(func=ast.Name(id=name), args=arguments) if name in _ORDERED_BY:
            yield from arguments
        case ast.Call(func=ast.Attribute(attr="pop", value=value), args=[]):
            yield value
        case ast.Call(func=ast.Attribute(attr="join" | "extend"), args=[argument]):
            yield argument


class _Known:
    """Names and attributes of a file that hold sets."""

    def __init__(self, tree: ast.Module) -> None:
        self._names: set[str] = set()
        self._functions: set[str] = set()
        for node in ast.walk(tree):
            match node:
                case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                    if node.returns is not None and _is_type(node.returns):
                        self._functions.add(name)
                case ast.AnnAssign(target=target, annotation=annotation) if _is_type(annotation):
                    self._names.add(ast.unparse(target))
                case ast.arg(arg=name, annotation=ast.expr() as annotation) if _is_type(annotation):
                    self._names.add(name)
                case ast.Assign(targets=[target], value=value) if self.is_set(value):
                    self._names.add(ast.unparse(target))

    def is_set(self, node: ast.expr) -> bool:
        """Whether an expression looks like a set."""
        match node:
            case ast.Set() | ast.SetComp():
                return True
            case ast.Await(value=value):
                return self.is_set(value)
            case ast.Call(func=ast.Name(id=name)):
                return name in _MAKERS or name in self._functions
            case ast.Call(func=ast.Subscript(value=ast.Name(id=name))):
                return name in _MAKERS
            case ast.Call(func=ast.Attribute(value=value, attr=attribute)):
                if attribute in _METHODS:
                    return self.is_set(value)
                return attribute in self._functions
            case ast.BinOp(left=left, op=operator, right=right):
                return isinstance(operator, _OPERATORS) and (
                    self.is_set(left) or self.is_set(right)
                )
            case ast.Name() | ast.Attribute():
                return ast.unparse(node) in self._names
        return False


def _is_type(annotation: ast.expr) -> bool:
    named = annotation.value if isinstance(annotation, ast.Subscript) else annotation
    return ast.unparse(named).rpartition(".")[2] in _TYPES
