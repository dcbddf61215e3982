"""Whether a value from a config fits an annotation as `signatures.py` reads it: type, choices, bounds."""

from __future__ import annotations

import ast
import functools
import math
import re
from collections.abc import Iterable
from dataclasses import astuple
from pathlib import Path
from typing import Any

from annotated_types import Ge, Gt, Le, Lt

from experiments.config.signatures import Bound, subscripted

_RELATIONS = {Ge: "at least", Gt: "above", Le: "at most", Lt: "below"}
_CONTAINERS = ("Optional", "Union", "list", "List", "Sequence", "tuple", "Tuple")


def matches(annotation: str | None, value: object) -> bool:
    """Return whether a value from a config fits an annotation; True where the annotation names types of its own.

    3.5 and "3" are no integers, 3 is a number, a list is a sequence and a tuple, a text is neither.
    """
    from pydantic import TypeAdapter, ValidationError

    kind = _evaluate(annotation)
    if kind is Any:
        return True
    try:
        TypeAdapter(kind).validate_python(value)
    except ValidationError:
        return False
    return True


def choices(annotation: str | None) -> tuple[Any, ...] | None:
    """Return what an annotation lists, for a value or for each in a list; None if it lists not all that fits."""
    found: list[Any] = []

    def collect(node: ast.expr) -> bool:
        if isinstance(node, ast.BinOp):
            return collect(node.left) and collect(node.right)
        if isinstance(node, ast.Subscript) and subscripted(node) == "Literal":
            listed = ast.literal_eval(node.slice)
            found.extend(listed if isinstance(listed, tuple) else [listed])
            return True
        if isinstance(node, ast.Subscript) and subscripted(node) in _CONTAINERS:
            return all(map(collect, node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]))
        if isinstance(node, ast.Name) and node.id == "bool":
            found.extend((True, False))
            return True
        return isinstance(node, ast.Constant) and node.value in (None, ...)

    is_list = collect(ast.parse(annotation or "Any", mode="eval").body)
    return tuple(found) if is_list and any(not isinstance(each, bool) for each in found) else None


def refusal(bounds: Iterable[Bound], value: object) -> str | None:
    """Return what a number, or a number in a list, must be and isn't."""
    for number in value if isinstance(value, list | tuple) else [value]:
        if isinstance(number, int | float) and not isinstance(number, bool):
            for bound in bounds:
                (limit,) = astuple(bound)
                fits = {Ge: number >= limit, Gt: number > limit, Le: number <= limit, Lt: number < limit}[type(bound)]
                if not fits or not math.isfinite(number):
                    return f"must be {_RELATIONS[type(bound)]} {limit}"
    return None


def in_words(annotation: str) -> tuple[str, str]:
    """Return what the first type of an annotation asks for, and an example as it is typed on the command line."""
    first = annotation.removeprefix("Optional[").split("|")[0].strip(" ]")
    if options := re.findall(r"['\"](.*?)['\"]", first):
        return f"one of {', '.join(options)}", options[0]
    if items := re.fullmatch(r"(?:list|Sequence|tuple|Iterable)\[(int|float|str)\b.*", first):
        return {"int": ("integers", "[96,48]"), "float": ("numbers", "[0.1,0.2]"), "str": ("texts", "[a,b]")}[items[1]]
    if first.startswith(("dict", "Mapping")):
        return "a mapping", "{name:value}"
    words = {"int": ("an integer", "4"), "float": ("a number", "0.1"), "bool": ("true or false", "true")}
    return words.get(first, ("text", "text") if first == "str" else (first, "..."))


@functools.cache
def _evaluate(annotation: str | None) -> Any:
    """Evaluate an annotation made of plain types; Any if it holds others."""
    import typing

    from pydantic import StrictBool, StrictFloat, StrictInt, StrictStr

    plain = {"int": StrictInt, "float": StrictFloat, "str": StrictStr, "bool": StrictBool, "Literal": typing.Literal}
    generic = {name: getattr(typing, name) for name in ("Any", "Optional", "Union", "Sequence", "Iterable", "Mapping")}
    older = {"List": list, "Dict": dict, "Tuple": tuple, "Set": set}
    known = {"list": list, "dict": dict, "tuple": tuple, "set": set, "None": None, "Path": Path, "object": Any}
    try:
        kind = eval(annotation or "Any", {"__builtins__": {}}, plain | generic | older | known)
    except (NameError, TypeError, AttributeError, SyntaxError):
        return Any
    return kind
