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
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal


@dataclass(frozen=True)
class Parameter:
    """One argument of a callable."""

    annotation: str | None  # its source, aliases replaced by what they stand for, with `| None` if the default is None
    required: bool  # has no default


@dataclass(frozen=True)
class Signature:
    """The arguments of a callable, in their order."""

    parameters: dict[str, Parameter]
    accepts_any: bool = False  # `**kwargs` takes any other, or the source doesn't tell
    fields_of: Literal["dataclass", "TypedDict"] | None = None  # whose fields one that derives from it takes too


@dataclass(frozen=True)
class _Module:
    name: str
    names: dict[str, ast.stmt | str]  # top-level name -> its definition, or the dotted path that it is imported from
    stars: list[str]  # modules imported with *


@functools.cache
def signature(target: str) -> Signature:
    """Return what the function, class or method at a full dotted path takes.

    Raises:
        LookupError: If there is no such file or name; one that only a module's `__getattr__` knows isn't found.
    """
    module, rest = _locate(defined_at(target))
    if module is None:  # compiled: no source to read
        return Signature({}, accepts_any=True)
    if not rest:
        raise LookupError(f"{target} is a module, not a function or class")
    node: ast.AST | str | None = _find(module, rest[0])
    for name in rest[1:]:
        node = next((n for n in getattr(node, "body", []) if getattr(n, "name", None) == name), None)
        if node is None:
            raise LookupError(f"{target}: {module.name} has no {'.'.join(rest)}")
    if isinstance(node, ast.ClassDef):
        return _of_class(module, node)
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        is_static = any(ast.unparse(decorator) == "staticmethod" for decorator in node.decorator_list)
        return _of_function(module, node, skip_first=len(rest) > 1 and not is_static)
    return Signature({}, accepts_any=True)  # made by a call: only running it would tell


@functools.cache
def defined_at(target: str) -> str:
    """Return the full path of what a dotted path leads to, `package.Name` and `module.os.system` followed.

    Raises:
        LookupError: As `signature`.
    """
    module, rest = _locate(target)
    if module is None or not rest:
        return target
    found = _find(module, rest[0])
    return ".".join([module.name, *rest]) if not isinstance(found, str) else defined_at(".".join([found, *rest[1:]]))


def _locate(target: str) -> tuple[_Module | None, list[str]]:
    """Return the module that a dotted path leads to (None if it is compiled) and the names left over."""
    name, *rest = target.split(".")
    spec = importlib.util.find_spec(name)  # only of the top package: for a.b.c it would import a and a.b
    if spec is None:
        raise LookupError(f"there is no package {name}")
    folders = [Path(each) for each in spec.submodule_search_locations or ()]  # several of a namespace
    holding = [each for each in folders if rest and any((each / f"{rest[0]}{end}").exists() for end in ("", ".py"))]
    folder = next(iter(holding or folders), None)
    path = Path(spec.origin or "")
    while rest and folder is not None:
        inside = folder / rest[0]
        if inside.is_dir():
            folder, path = inside, inside / "__init__.py"
        elif (file := folder / f"{rest[0]}.py").is_file():
            folder, path = None, file
        else:
            break
        name += "." + rest.pop(0)
    return (_parse(name, path) if path.suffix == ".py" else None), rest


@functools.cache
def _parse(name: str, path: Path) -> _Module:
    """List what a file defines and imports at its top level, `if` and `try` blocks included."""
    module = _Module(name, {}, [])
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    for node in _statements(ast.parse(path.read_bytes()).body) if path.is_file() else ():
        if isinstance(node, ast.ImportFrom):
            origin = importlib.util.resolve_name("." * node.level + (node.module or ""), package)
            for alias in node.names:
                if alias.name == "*":
                    module.stars.append(origin)
                elif f"{origin}.{alias.name}" != f"{name}.{alias.asname or alias.name}":
                    module.names[alias.asname or alias.name] = f"{origin}.{alias.name}"
        elif isinstance(node, ast.Import):
            for alias in node.names:
                top = alias.name.partition(".")[0]
                module.names[alias.asname or top] = alias.name if alias.asname else top
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            module.names[node.name] = node
        elif isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name):
            module.names[node.targets[0].id] = node
    return module


def _statements(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    for node in body:
        yield node
        if isinstance(node, ast.If | ast.Try | ast.With):
            for block in ("body", "orelse", "finalbody"):
                yield from _statements(getattr(node, block, []))


def _find(module: _Module, name: str) -> ast.stmt | str:
    """Return a name's definition in a module, or the dotted path that it stands for."""
    if (node := module.names.get(name)) is not None:
        return (isinstance(node, ast.Assign) and _dotted(module, node.value)) or node  # Old = New
    for star in module.stars:
        other, rest = _locate(star)
        if other is not None and not rest and name in other.names:
            return f"{star}.{name}"
    raise LookupError(f"{module.name} has no {name}")


def _dotted(module: _Module, node: ast.expr) -> str | None:
    """Return the dotted path that an expression such as `losses.CosineLoss` stands for; None if it isn't a path."""
    if isinstance(node, ast.Name) and (known := module.names.get(node.id)) is not None:
        return known if isinstance(known, str) else f"{module.name}.{node.id}"
    if isinstance(node, ast.Attribute) and (parent := _dotted(module, node.value)) is not None:
        return f"{parent}.{node.attr}"
    return _dotted(module, node.value) if isinstance(node, ast.Subscript) else None  # Generic[T]


def _of_class(module: _Module, node: ast.ClassDef) -> Signature:
    for statement in node.body:
        if isinstance(statement, ast.FunctionDef) and statement.name == "__init__":
            return _of_function(module, statement, skip_first=True)
    paths = [path for path in (_dotted(module, base) for base in node.bases) if path is not None]
    bases = [_of_base(path) for path in paths if not path.endswith(".TypedDict")]
    inherited = [base for base in reversed(bases) if base.fields_of]
    is_typed_dict = len(bases) < len(paths) or any(base.fields_of == "TypedDict" for base in inherited)
    if not is_typed_dict and not any("dataclass" in ast.unparse(decorator) for decorator in node.decorator_list):
        return next((base for base in bases if base.parameters or base.accepts_any), Signature({}))
    parameters = {name: parameter for base in inherited for name, parameter in base.parameters.items()}
    fields = dict(_fields(module, node))
    if is_typed_dict:
        total = not any(keyword.arg == "total" and ast.unparse(keyword.value) == "False" for keyword in node.keywords)
        fields = {name: _key(field, total) for name, field in fields.items()}
    accepts_any = any(base.accepts_any for base in inherited)
    return Signature(parameters | fields, accepts_any, "TypedDict" if is_typed_dict else "dataclass")


def _of_base(target: str) -> Signature:
    try:
        return signature(target)
    except LookupError:  # made at run time: nothing is known of it
        return Signature({}, accepts_any=True, fields_of="dataclass")


def _fields(module: _Module, node: ast.ClassDef) -> Iterator[tuple[str, Parameter]]:
    """Yield the fields of a dataclass that its `__init__` takes, or the keys of a TypedDict."""
    for statement in node.body:
        if not isinstance(statement, ast.AnnAssign) or not isinstance(statement.target, ast.Name):
            continue
        default = statement.value
        if isinstance(default, ast.Call) and ast.unparse(default.func).split(".")[-1] == "field":
            keywords = {k.arg: k.value for k in default.keywords}
            if "init" in keywords and ast.unparse(keywords["init"]) == "False":
                continue
            default = keywords.get("default", keywords.get("default_factory"))
        if "ClassVar" not in ast.unparse(statement.annotation):
            yield statement.target.id, _parameter(module, statement.annotation, default)


def _key(field: Parameter, total: bool) -> Parameter:
    """Return a key of a TypedDict, whose annotation may say by itself whether it must be there."""
    says = re.fullmatch(r"(?:\w+\.)?(Not)?Required\[(.*)\]", field.annotation or "")
    return Parameter(says[2], required=not says[1]) if says else replace(field, required=total)


def _of_function(module: _Module, node: ast.FunctionDef | ast.AsyncFunctionDef, *, skip_first: bool) -> Signature:
    args = node.args
    positional = [*args.posonlyargs, *args.args]
    defaults = [None] * (len(positional) - len(args.defaults)) + args.defaults
    pairs = [*zip(positional, defaults, strict=True)][1 if skip_first else 0 :]
    pairs += zip(args.kwonlyargs, args.kw_defaults, strict=True)
    parameters = {arg.arg: _parameter(module, arg.annotation, default) for arg, default in pairs}
    options = args.kwarg.annotation if args.kwarg is not None else None
    if isinstance(options, ast.Subscript) and ast.unparse(options.value).rpartition(".")[2] == "Unpack":
        path = _dotted(module, options.slice)
        keys = Signature({}, accepts_any=True) if path is None else _of_base(path)
        return Signature(parameters | keys.parameters, keys.accepts_any)
    return Signature(parameters, args.kwarg is not None)


def _parameter(module: _Module, annotation: ast.expr | None, default: ast.expr | None) -> Parameter:
    if annotation is None:
        return Parameter(None, default is None)
    if isinstance(annotation, ast.Constant) and isinstance(annotation.value, str):
        annotation = ast.parse(annotation.value, mode="eval").body
    text = ast.unparse(_Aliases(module).visit(copy.deepcopy(annotation)))
    optional = text.endswith("None") or text.startswith("Optional")
    if isinstance(default, ast.Constant) and default.value is None and not optional:
        text += " | None"  # older code writes `dim: int = None`
    return Parameter(text, default is None)


class _Aliases(ast.NodeTransformer):
    """Puts what an alias of the same package stands for in its place."""

    def __init__(self, module: _Module) -> None:
        self.module = module

    def visit_Name(self, node: ast.Name) -> ast.AST:  # noqa: D102
        module, found = self.module, self.module.names.get(node.id)
        if isinstance(found, str) and found.partition(".")[0] == module.name.partition(".")[0]:
            origin, rest = _locate(found)
            if origin is not None and len(rest) == 1:
                module, found = origin, origin.names.get(rest[0])
        if isinstance(found, ast.Assign) and isinstance(found.value, ast.Subscript | ast.BinOp):
            return _Aliases(module).visit(copy.deepcopy(found.value))
        return node
