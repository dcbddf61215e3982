"""What a `_target_` takes, read from the installed source with `ast`: nothing is imported, so it takes milliseconds.

An annotation tells the type (`int | None`), the choices (`Literal["a", "b"]`) and the bounds (`Annotated[int, Ge(1)]`,
with `annotated_types`), in place or by the name of an alias in the same package; `**options: Unpack[SomeTypedDict]`
are that class's keys. Whether a value fits is in `values.py`.
"""

from __future__ import annotations

import ast
import copy
import functools
import importlib.util
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from annotated_types import Ge, Gt, Interval, Le, Lt

Bound = Ge | Gt | Le | Lt
_BOUNDS = {"Ge": Ge, "Gt": Gt, "Le": Le, "Lt": Lt, "Interval": Interval, "Field": Interval}  # the last is pydantic's
_INTERVAL = ("ge", "gt", "le", "lt")


@dataclass(frozen=True)
class Parameter:
    """One argument of a callable.

    Attributes:
        annotation: Its source text without `Annotated` and aliases, with `| None` added where the default is None;
            None where there is none.
        required: Whether it has no default.
        bounds: Of a number, or of each number in a list.
    """

    annotation: str | None
    required: bool
    bounds: tuple[Bound, ...] = ()


@dataclass(frozen=True)
class Signature:
    """The arguments of a callable by name.

    Attributes:
        parameters: In order.
        accepts_any: Whether `**kwargs` takes any other.
        generated: Whether they are the fields of a dataclass or the keys of a TypedDict, which one that derives from
            it takes too.
        is_typed_dict: Whether they are the keys of a TypedDict.
    """

    parameters: dict[str, Parameter]
    accepts_any: bool = False
    generated: bool = False
    is_typed_dict: bool = False


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
        return _function_signature(module, node, skip_first=len(rest) > 1 and not _is_static(node))
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
            return _function_signature(module, statement, skip_first=True)
    paths = [path for path in (_dotted(module, base) for base in node.bases) if path is not None]
    bases = [_base_signature(path) for path in paths if not path.endswith(".TypedDict")]
    is_typed_dict = len(bases) < len(paths) or any(base.is_typed_dict for base in bases)
    if not is_typed_dict and not any("dataclass" in ast.unparse(decorator) for decorator in node.decorator_list):
        return next((base for base in bases if base.parameters or base.accepts_any), Signature({}))
    inherited = [base for base in reversed(bases) if base.generated]
    parameters = {name: parameter for base in inherited for name, parameter in base.parameters.items()}
    parameters |= dict(_keys(module, node) if is_typed_dict else _fields(module, node))
    return Signature(parameters, any(base.accepts_any for base in inherited), True, is_typed_dict)


def _base_signature(target: str) -> Signature:
    try:
        return read(target)
    except LookupError:  # made at run time: nothing is known of it
        return Signature({}, accepts_any=True, generated=True)


def _fields(module: _Module, node: ast.ClassDef) -> Iterator[tuple[str, Parameter]]:
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
        yield statement.target.id, _parameter(module, statement.annotation, default)


def _keys(module: _Module, node: ast.ClassDef) -> Iterator[tuple[str, Parameter]]:
    """Yield the keys of a TypedDict, but those of its bases."""
    total = not any(keyword.arg == "total" and ast.unparse(keyword.value) == "False" for keyword in node.keywords)
    for statement in node.body:
        if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
            annotation, required = statement.annotation, total
            while isinstance(annotation, ast.Subscript) and subscripted(annotation) in ("Required", "NotRequired"):
                required, annotation = subscripted(annotation) == "Required", annotation.slice
            yield statement.target.id, replace(_parameter(module, annotation, None), required=required)


def _function_signature(
    module: _Module, node: ast.FunctionDef | ast.AsyncFunctionDef, *, skip_first: bool
) -> Signature:
    args = node.args
    positional = [*args.posonlyargs, *args.args]
    defaults = [None] * (len(positional) - len(args.defaults)) + args.defaults
    pairs = [*zip(positional, defaults, strict=True)][1 if skip_first else 0 :]
    pairs += zip(args.kwonlyargs, args.kw_defaults, strict=True)
    parameters = {arg.arg: _parameter(module, arg.annotation, default) for arg, default in pairs}
    options = args.kwarg.annotation if args.kwarg is not None else None
    if isinstance(options, ast.Subscript) and subscripted(options) == "Unpack":
        path = _dotted(module, options.slice)
        keys = Signature({}, accepts_any=True) if path is None else _base_signature(path)
        return Signature(parameters | keys.parameters, keys.accepts_any)
    return Signature(parameters, args.kwarg is not None)


def subscripted(node: ast.Subscript) -> str:
    """Return the name that is subscripted, without its module."""
    return ast.unparse(node.value).rpartition(".")[2]


def _parameter(module: _Module | None, annotation: ast.expr | None, default: ast.expr | None) -> Parameter:
    if annotation is None:
        return Parameter(None, default is None)
    quoted = isinstance(annotation, ast.Constant) and isinstance(annotation.value, str)
    plain = _Plain(module)
    if quoted:
        annotation = ast.parse(str(annotation.value), mode="eval").body  # type: ignore[attr-defined]
    text = ast.unparse(plain.visit(copy.deepcopy(annotation)))
    optional = text.endswith("None") or text.startswith("Optional")
    if isinstance(default, ast.Constant) and default.value is None and not optional:
        text += " | None"  # older code writes `dim: int = None`
    return Parameter(text, default is None, tuple(plain.bounds))


def parameter(annotation: str) -> Parameter:
    """Return what an annotation tells that stands in no source file."""
    return _parameter(None, ast.parse(annotation, mode="eval").body, None)


class _Plain(ast.NodeTransformer):
    """Puts the type in the place of `Annotated`, and what it stands for in that of an alias; notes the bounds."""

    def __init__(self, module: _Module | None) -> None:
        self.module = module
        self.bounds: list[Bound] = []

    def visit_Subscript(self, node: ast.Subscript) -> ast.AST:  # noqa: D102
        if subscripted(node) == "Literal":
            return node
        if subscripted(node) != "Annotated" or not isinstance(node.slice, ast.Tuple):
            return self.generic_visit(node)
        kind, *notes = node.slice.elts
        for note in notes:
            make = _BOUNDS.get(ast.unparse(note.func).rpartition(".")[2]) if isinstance(note, ast.Call) else None
            if isinstance(note, ast.Call) and make is not None:
                keywords = {str(k.arg): k.value for k in note.keywords if make is not Interval or k.arg in _INTERVAL}
                with suppress(ValueError):  # a bound that has a name: only running it would tell
                    values = {name: ast.literal_eval(value) for name, value in keywords.items()}
                    bound: Any = make(*map(ast.literal_eval, note.args if make is not Interval else []), **values)
                    self.bounds.extend(bound if make is Interval else [bound])
        return self.visit(kind)

    def visit_Name(self, node: ast.Name) -> ast.AST:  # noqa: D102
        module, name = self.module, node.id
        found = module.names.get(name) if module is not None else None
        if module is not None and isinstance(found, str) and _package(found) == _package(module.name):
            module, rest = _locate(found)
            found = module.names.get(rest[0]) if module is not None and len(rest) == 1 else None
        if not isinstance(found, ast.Assign) or not isinstance(found.value, ast.Subscript | ast.BinOp):
            return node
        within = _Plain(module)
        kind = within.visit(copy.deepcopy(found.value))
        self.bounds += within.bounds
        return kind


def _package(name: str) -> str:
    return name.partition(".")[0]


def _is_static(node: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    return any(ast.unparse(decorator) == "staticmethod" for decorator in node.decorator_list)
