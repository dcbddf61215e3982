"""The house: which room may import which, and who may import Hydra. CONTRIBUTING.md says what belongs where."""

import ast
import re
from pathlib import Path

SRC = Path(__file__).parents[1] / "src"
FLOORS = (  # from the lowest up: a room imports the other room of its floor and those below; a door none of its floor
    *({"config"}, {"data", "runs"}, {"models", "evaluation"}, {"training", "reports"}),
    *({"cli"}, {"stages"}, {"train", "evaluate", "plan", "compare", "report", "__main__"}),
)
FLOOR = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
FLOOR["hydra_plugins"] = len(FLOORS)  # the launcher imports what it needs, and nobody imports it
MAY_IMPORT_HYDRA = {"cli", "stages", *FLOORS[-1]}
FILES = {".".join(path.relative_to(SRC).with_suffix("").parts): path for path in sorted(SRC.rglob("*.py"))}
FILES = {name.removesuffix(".__init__"): path for name, path in FILES.items()}


def imports(name):
    """Yield module and name (None: the module itself) of each import in a file, wherever it stands."""
    for node in ast.walk(ast.parse(FILES[name].read_text())):
        if isinstance(node, ast.Import):
            yield from ((alias.name, None) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                yield (whole, None) if whole in FILES else (node.module, alias.name)


IMPORTS = {name: list(imports(name)) for name in FILES}
OURS = [(name, module, what) for name in FILES for module, what in IMPORTS[name] if module in FILES and module != name]


def room(name):
    package, _, rest = name.partition(".")
    return rest.partition(".")[0] if package == "experiments" else package


def test_ten_files_at_most_stand_at_the_top():
    assert len([path for path in (SRC / "experiments").glob("*.py") if path.name != "__init__.py"]) <= 10


def test_imports_run_one_way():
    def is_below(upper, lower):
        between_rooms = FLOOR[upper] == FLOOR[lower] < FLOOR["cli"]
        return upper == lower or between_rooms or FLOOR[upper] > FLOOR[lower]

    from_ours = [(name, module) for name, module, _ in OURS if name.startswith("experiments.")]
    assert [pair for pair in from_ours if not is_below(room(pair[0]), room(pair[1]))] == []


def test_nobody_below_the_command_line_imports_hydra():
    found = {name for name in FILES for module, _ in IMPORTS[name] if module.partition(".")[0] == "hydra"}
    assert {name for name in found if name.startswith("experiments.") and room(name) not in MAY_IMPORT_HYDRA} == set()


def test_no_private_name_is_imported_from_another_folder():
    elsewhere = [each for each in OURS if FILES[each[0]].parent != FILES[each[1]].parent]
    private = [(name, f"{module}.{what or ''}") for name, module, what in elsewhere]
    assert [pair for pair in private if "._" in pair[1]] == []


def test_no_circle():
    below = {name: {module for file, module, _ in OURS if file == name} for name in FILES}
    while leaves := {name for name, modules in below.items() if not modules}:
        below = {name: modules - leaves for name, modules in below.items() if name not in leaves}
    assert below == {}  # else: what is in a circle, or above one


def test_each_room_says_what_belongs_there_and_its_first_file_holds_no_code():
    for folder in {path.parent for path in FILES.values()}:
        tree = ast.parse((folder / "__init__.py").read_text())
        assert ast.get_docstring(tree) and len(tree.body) == 1, folder


def test_no_test_touches_a_private_name():
    of_the_language = {"_replace", "_asdict", "_exit"}
    touched = []
    for path in sorted(Path(__file__).parent.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            names = []
            if isinstance(node, ast.ImportFrom) and str(node.module).startswith(("experiments.", "hydra_plugins.")):
                names = [*str(node.module).split("."), *(alias.name for alias in node.names)]
            elif isinstance(node, ast.Attribute) and getattr(node.value, "id", "") != "self":
                names = [node.attr]
            elif isinstance(node, ast.Call) and getattr(node.func, "attr", "") in (
                "setattr",
                "delattr",
            ):  # monkeypatch's
                names = [name for argument in node.args[:2] for name in ast.unparse(argument).strip("'\"").split(".")]
            private = [name for name in names if re.fullmatch(r"_[A-Za-z]\w*(?<!_)", name)]
            touched += [f"{path.name}:{node.lineno} {name}" for name in private if name not in of_the_language]
    assert touched == []
