"""What a `_target_` takes, read from the installed source with `ast`: nothing is imported, so it takes milliseconds.

Also whether a value fits an annotation read that way.
"""

from __future__ import annotations

import ast
import functools
import importlib.util
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Parameter:
    """One argument of a callable.

    Attributes:
        annotation: Its source text, with `| None` added where the default is None; None where there is none.
        required: Whether it has no default.
    """

    annotation: str | None
    required: bool


@dataclass(frozen=True)
class Signature:
    """The arguments of a callable by name.

    Attributes:
        parameters: In order.
        accepts_any: Whether `**kwargs` takes any other.
        generated: Whether they are the fields of a dataclass, which a dataclass that derives from it takes too.
    """

    parameters: dict[str, Parameter]
    accepts_any: bool = False
    generated: bool = False


@dataclass(frozen=True)
class _Module:
    name: str
    path: Path
    names: dict[str, ast.stmt | str]  # top-level name -> its definition, or the dotted path that it is imported from
    stars: tuple[str, ...]  # modules imported with *


def signature(target: str) -> dict[str, Parameter]:
    """Return the parameters of the function, class or method at a full dotted path.

    Args:
        target: For instance `experiments.models.embedders.load_embedder`. A name that only a module's `__getattr__`
            knows isn't found: give the path of the file that defines it.

    Raises:
        LookupError: If there is no such file or name.
    """
    return read(target).parameters


def accepts_any(target: str) -> bool:
    """Return whether the callable takes `**kwargs`, so that no key is unknown to it."""
    return read(target).accepts_any


@functools.cache
def read(target: str) -> Signature:
    """Read a callable's signature; see `signature`."""
    module, rest = _locate(target)
    if module is None:  # compiled: no source to read
        return Signature({}, accepts_any=True)
    if not rest:
        raise LookupError(f"{target} is a module, not a function or class")
    found = _find(module, rest[0])
    if isinstance(found, str):
        return read(".".join([found, *rest[1:]]))
    node: ast.AST | None = found
    for name in rest[1:]:
        node = next((n for n in getattr(node, "body", []) if getattr(n, "name", None) == name), None)
        if node is None:
            raise LookupError(f"{target}: {module.name} has no {'.'.join(rest)}")
    if isinstance(node, ast.ClassDef):
        return _class_signature(module, node)
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        return _function_signature(node, skip_first=len(rest) > 1 and not _is_static(node))
    return Signature({}, accepts_any=True)  # made by a call: only running it would tell


def _locate(target: str) -> tuple[_Module | None, list[str]]:
    """Return the module that a dotted path leads to (None if it is compiled) and the names left over."""
    top, *rest = target.split(".")
    spec = importlib.util.find_spec(top)  # only of the top package: for a.b.c it would import a and a.b
    if spec is None:
        raise LookupError(f"there is no package {top}")
    folder = Path(next(iter(spec.submodule_search_locations))) if spec.submodule_search_locations else None
    path = Path(spec.origin) if spec.origin is not None else None
    name = top
    while rest and folder is not None:
        package, file = folder / rest[0] / "__init__.py", folder / f"{rest[0]}.py"
        if package.is_file() or (folder / rest[0]).is_dir():
            folder, path = package.parent, package
        elif file.is_file():
            folder, path = None, file
        else:
            break
        name += "." + rest.pop(0)
    if path is None or path.suffix != ".py":
        return None, rest
    return (_parse(name, path) if path.is_file() else _Module(name, path, {}, ())), rest


@functools.cache
def _parse(name: str, path: Path) -> _Module:
    """Parse a file and list what it defines and imports at its top level, `if` and `try` blocks included."""
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    names: dict[str, ast.stmt | str] = {}
    stars = []
    for node in _statements(ast.parse(path.read_bytes()).body):
        if isinstance(node, ast.ImportFrom):
            parents = package.split(".")
            parents = parents[: len(parents) - node.level + 1] if node.level else []
            origin = ".".join([*parents, *([node.module] if node.module else [])])
            for alias in node.names:
                if alias.name == "*":
                    stars.append(origin)
                elif f"{origin}.{alias.name}" != f"{name}.{alias.asname or alias.name}":
                    names[alias.asname or alias.name] = f"{origin}.{alias.name}"
        elif isinstance(node, ast.Import):
            for alias in node.names:
                names[alias.asname or alias.name.split(".")[0]] = (
                    alias.name if alias.asname else alias.name.split(".")[0]
                )
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names[node.name] = node
        elif isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name):
            names[node.targets[0].id] = node
    return _Module(name, path, names, tuple(stars))


def _statements(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    for node in body:
        yield node
        if isinstance(node, ast.If | ast.Try | ast.With):
            for block in ("body", "orelse", "finalbody"):
                yield from _statements(getattr(node, block, []))


def _find(module: _Module, name: str) -> ast.stmt | str:
    """Return a name's definition in a module, or the dotted path that it stands for."""
    node = module.names.get(name)
    if isinstance(node, ast.Assign):  # Old = New
        other = _dotted(module, node.value)
        return node if other is None else other
    if node is not None:
        return node
    for star in module.stars:
        other_module, rest = _locate(star)
        if other_module is not None and not rest and name in other_module.names:
            return f"{star}.{name}"
    raise LookupError(f"{module.name} has no {name}")


def _dotted(module: _Module, node: ast.expr) -> str | None:
    """Return the dotted path that an expression such as `losses.CosineLoss` stands for; None if it isn't a path."""
    if isinstance(node, ast.Name):
        known = module.names.get(node.id)
        return known if isinstance(known, str) else f"{module.name}.{node.id}" if known is not None else None
    if isinstance(node, ast.Attribute):
        parent = _dotted(module, node.value)
        return None if parent is None else f"{parent}.{node.attr}"
    if isinstance(node, ast.Subscript):  # Generic[T]
        return _dotted(module, node.value)
    return None


def _class_signature(module: _Module, node: ast.ClassDef) -> Signature:
    for statement in node.body:
        if isinstance(statement, ast.FunctionDef) and statement.name == "__init__":
            return _function_signature(statement, skip_first=True)
    bases = [_base_signature(base) for base in (_dotted(module, base) for base in node.bases) if base is not None]
    if not any("dataclass" in ast.unparse(decorator) for decorator in node.decorator_list):
        return next((base for base in bases if base.parameters or base.accepts_any), Signature({}))
    inherited = [base for base in reversed(bases) if base.generated]
    parameters = {name: parameter for base in inherited for name, parameter in base.parameters.items()}
    return Signature(parameters | dict(_fields(node)), any(base.accepts_any for base in inherited), generated=True)


def _base_signature(target: str) -> Signature:
    try:
        return read(target)
    except LookupError:  # made at run time: nothing is known of it
        return Signature({}, accepts_any=True, generated=True)


def _fields(node: ast.ClassDef) -> Iterator[tuple[str, Parameter]]:
    """Yield the fields of a dataclass that its `__init__` takes."""
    for statement in node.body:
        if not isinstance(statement, ast.AnnAssign) or not isinstance(statement.target, ast.Name):
            continue
        if "ClassVar" in ast.unparse(statement.annotation):
            continue
        default = statement.value
        if isinstance(default, ast.Call) and ast.unparse(default.func).split(".")[-1] == "field":
            keywords = {k.arg: k.value for k in default.keywords}
            if "init" in keywords and ast.unparse(keywords["init"]) == "False":
                continue
            default = keywords.get("default", keywords.get("default_factory"))
        yield statement.target.id, _parameter(statement.annotation, default)


def _function_signature(node: ast.FunctionDef | ast.AsyncFunctionDef, *, skip_first: bool) -> Signature:
    args = node.args
    positional = [*args.posonlyargs, *args.args]
    defaults = [None] * (len(positional) - len(args.defaults)) + args.defaults
    pairs = [*zip(positional, defaults, strict=True)][1 if skip_first else 0 :]
    pairs += zip(args.kwonlyargs, args.kw_defaults, strict=True)
    return Signature({arg.arg: _parameter(arg.annotation, default) for arg, default in pairs}, args.kwarg is not None)


def _parameter(annotation: ast.expr | None, default: ast.expr | None) -> Parameter:
    text: str | None = None
    if annotation is not None:
        quoted = isinstance(annotation, ast.Constant) and isinstance(annotation.value, str)
        text = str(annotation.value) if quoted else ast.unparse(annotation)  # type: ignore[attr-defined]
        optional = text.endswith("None") or text.startswith("Optional")
        if isinstance(default, ast.Constant) and default.value is None and not optional:
            text += " | None"  # older code writes `dim: int = None`
    return Parameter(text, default is None)


def _is_static(node: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    return any(ast.unparse(decorator) == "staticmethod" for decorator in node.decorator_list)


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
