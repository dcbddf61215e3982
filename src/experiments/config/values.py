"""Whether a value fits an annotation as `signatures.py` reads it (type, choices, bounds), and numbers of bytes."""

from __future__ import annotations

import difflib
import functools
import math
import re
import typing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments.config.errors import ConfigError
from experiments.config.hints import show

if TYPE_CHECKING:
    from pydantic import TypeAdapter  # not needed for --help

_RELATIONS = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}


def check_value(key: str, value: object, annotation: str | None) -> None:
    """Refuse a value, or an item of it, that doesn't fit an annotation.

    3.5 and "3" are no integers, 3 is a number, a list is a sequence and a tuple, a text is neither. Where the
    annotation names types of its own all fits.

    Raises:
        ConfigError: It says what the value must be, and what to type instead.
    """
    from pydantic import ValidationError

    endless = isinstance(value, float) and not math.isfinite(value)  # is within no bounds
    try:
        _adapter(annotation or "Any").validate_python(-math.inf if endless else value)
        return
    except ValidationError as error:
        limits = [limit for each in error.errors() for limit in each.get("ctx", {}).items() if limit[0] in _RELATIONS]
    given = f"{key}={show(value)}"
    if limits:
        relation, limit = limits[0]
        raise ConfigError(f"{given}: must be {_RELATIONS[relation]} {limit:.12g}")
    if (options := _choices(_evaluate(annotation or "Any"))) and options != [True, False]:
        wrong = next((item for item in value if item not in options), value) if isinstance(value, list) else value
        near = difflib.get_close_matches(str(wrong), [show(option) for option in options], 1)
        did_you_mean = f"; did you mean {near[0]}?" if near else ""
        raise ConfigError(f"{given}: choose from {', '.join(map(show, options))}{did_you_mean}")
    shown = re.sub(r"Annotated\[([^,]+), [^\]]*\]", r"\1", str(annotation))
    what, example = _in_words(shown)
    if what == "text" and isinstance(value, int | float):
        example = f"\"'{show(value)}'\""  # the quotes that make it text
    raise ConfigError(f"{given}: expected {what} ({shown}); type e.g. {key}={example}")


def parse_bytes(size: str | int | None, key: str = "memory_limit") -> int | None:
    """Return a number of bytes, written as such or as text like "6GiB"; None is None.

    Raises:
        ConfigError: If it is neither; it names the key.
    """
    if size is None:
        return None
    from pydantic import ByteSize, TypeAdapter, ValidationError

    try:
        if (number := TypeAdapter(ByteSize).validate_python(str(size))) > 0:
            return int(number)
    except ValidationError:
        pass
    raise ConfigError(f"{key}={size}: expected bytes, such as 6GiB or 500MiB")


def _choices(kind: Any) -> list[Any] | None:
    """Return what a type lists, for a value or for each in a list; None if it lists not all that fits."""
    from pydantic import StrictBool

    if kind in (None, type(None), ...):
        return []
    if kind == StrictBool:
        return [True, False]
    if typing.get_origin(kind) is typing.Literal:
        return [*typing.get_args(kind)]
    parts = [_choices(part) for part in typing.get_args(kind)]
    return None if not parts or None in parts else [each for part in parts for each in part or ()]


def _in_words(annotation: str) -> tuple[str, str]:
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
def _adapter(annotation: str) -> TypeAdapter[Any]:
    from pydantic import TypeAdapter

    return TypeAdapter(_evaluate(annotation))


@functools.cache
def _evaluate(annotation: str) -> Any:
    """Evaluate an annotation made of plain types; Any if it holds others."""
    import annotated_types
    from pydantic import Field, StrictBool, StrictFloat, StrictInt, StrictStr

    plain = {"int": StrictInt, "float": StrictFloat, "str": StrictStr, "bool": StrictBool, "None": None}
    names = ("Any", "Optional", "Union", "Sequence", "Iterable", "Mapping", "Literal", "Annotated")
    generic = {name: getattr(typing, name) for name in names} | {"List": list, "Dict": dict, "Tuple": tuple}
    known = {"list": list, "dict": dict, "tuple": tuple, "set": set, "Set": set, "Path": Path, "object": Any}
    bounds = {name: getattr(annotated_types, name) for name in ("Ge", "Gt", "Le", "Lt", "Interval")}
    try:
        return eval(annotation, {"__builtins__": {}}, plain | generic | known | bounds | {"Field": Field})
    except (NameError, TypeError, AttributeError, SyntaxError):
        return Any
