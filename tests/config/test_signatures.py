"""What callables take, read from source, against what they really take."""

import inspect
import subprocess
import sys

import pytest

from experiments.config.errors import ConfigError
from experiments.config.signatures import Parameter, signature
from experiments.config.values import check_value

TRAINING_ARGUMENTS = "sentence_transformers.sentence_transformer.training_args.SentenceTransformerTrainingArguments"

CARD = "sentence_transformers.sentence_transformer.model_card.SentenceTransformerModelCardData"


def misfit(*given):
    """Return why a value is refused; None if it isn't."""
    try:
        check_value(*given)
    except ConfigError as error:
        return str(error)


def test_function_has_its_parameters_and_which_are_required():
    parameters = signature("experiments.models.embedders.load_embedder").parameters
    assert parameters["name"].required and not parameters["max_pixels"].required
    assert parameters["max_pixels"].annotation == "Annotated[int, Ge(1)] | None"
    assert not signature("experiments.models.embedders.load_embedder").accepts_any


def test_method_is_found_without_its_self():
    assert "self" not in signature("datasets.Dataset.map").parameters
    assert "path" in signature("datasets.load_dataset").parameters


def test_class_without_init_has_that_of_its_first_base_with_one():
    assert set(signature("logging.FileHandler").parameters) == {"filename", "mode", "encoding", "delay", "errors"}
    assert signature("http.server.ThreadingHTTPServer") == signature("socketserver.TCPServer")


def test_kwargs_accept_any_key():
    assert signature("datasets.load_dataset").accepts_any


def test_missing_names_say_what_is_missing():
    with pytest.raises(LookupError, match="no package nosuchpackage"):
        signature("nosuchpackage.thing")
    with pytest.raises(LookupError, match=r"experiments\.models\.embedders has no nosuchname"):
        signature("experiments.models.embedders.nosuchname")
    with pytest.raises(LookupError, match="is a module"):
        signature("experiments.models.embedders")


def test_nothing_is_imported():
    code = (
        "import sys; from experiments.config.signatures import signature;"
        "signature('experiments.training.trainer.TrainingArguments');"
        "print(sorted({'torch', 'transformers', 'sentence_transformers', 'datasets'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_signatures_equal_those_of_the_imported_objects():
    from sentence_transformers.sentence_transformer import losses, model_card
    from sentence_transformers.sentence_transformer.training_args import SentenceTransformerTrainingArguments

    pairs = {
        TRAINING_ARGUMENTS: SentenceTransformerTrainingArguments,  # dataclass fields over three modules
        "sentence_transformers.sentence_transformer.losses.MatryoshkaLoss": losses.MatryoshkaLoss,  # a re-export
        CARD: model_card.SentenceTransformerModelCardData,  # a dataclass whose base isn't one
        "sentence_transformers.SentenceTransformer": sys.modules["sentence_transformers"].SentenceTransformer,
    }
    for target, real in pairs.items():
        expected = inspect.signature(real).parameters
        assert list(signature(target).parameters) == list(expected), target
        required = [name for name, parameter in expected.items() if parameter.default is inspect.Parameter.empty]
        assert [name for name, parameter in signature(target).parameters.items() if parameter.required] == required


@pytest.mark.parametrize(
    ("annotation", "fitting", "unfitting"),
    [
        ("int", [3], ["eight", 3.5, True, None]),
        ("int | None", [3, None], ["3"]),
        ("float", [3, 3.5], ["3.5", True]),
        ("bool | str", [True, "auto"], [1]),
        ("Optional[str]", ["a", None], [3]),
        ("Sequence[int] | None", [[1, 2], None], [[1, 2.5], 12, "12"]),
        ("tuple[str, ...]", [["a"]], ["a", [1]]),
        ("dict[str, str]", [{"a": "b"}], [{"a": 1}, "a"]),
        ("Literal['a', 'b']", ["a"], ["c"]),
        ("torch.dtype | SomethingElse", ["anything", 3], []),
        (None, [3], []),
    ],
)
def test_values_match_annotations_strictly(annotation, fitting, unfitting):
    assert [value for value in fitting if misfit("key", value, annotation)] == []
    assert [value for value in unfitting if not misfit("key", value, annotation)] == []


@pytest.mark.parametrize(
    ("annotation", "what", "example"),
    [
        ("int | None", "an integer", "4"),
        ("Annotated[int, Ge(1)]", "an integer", "4"),
        ("Sequence[int] | None", "integers", "[96,48]"),
        ("Optional[float]", "a number", "0.1"),
        ("dict[str, str]", "a mapping", "{name:value}"),
        ("Literal['a', 'b'] | int", "one of a, b", "a"),
    ],
)
def test_annotations_are_put_into_words(annotation, what, example):
    shown = "int" if annotation.startswith("Annotated") else annotation
    assert misfit("key", "x", annotation) == f"key=x: expected {what} ({shown}); type e.g. key={example}"


BASE = """
from typing import Annotated, Literal, NotRequired, TypedDict
from annotated_types import Ge, Interval

Positive = Annotated[int, Ge(1)]
Kind = Literal["a", "b"]


class Base(TypedDict):
    needed: Positive | None
    spare: NotRequired[int]
    share: Annotated[float, Interval(gt=0, le=1)]
"""
TARGETS = """
from __future__ import annotations
from typing import TYPE_CHECKING, Annotated, Required, Unpack
from annotated_types import Gt
from pydantic import Field
if TYPE_CHECKING:
    from options_package.base import Base, Kind, Positive


class Options(Base, total=False):
    kind: Kind
    dims: list[Annotated[int, Gt(0)]]
    name: Required[str]


def load(path: str, *, size: Positive = 4, low: "Annotated[int, Field(ge=0, description='d')]" = None,
         **options: Unpack[Options]): ...
def plain(**options: Unpack[Base]): ...
def anything(**options: int): ...
"""


@pytest.fixture
def targets(tmp_path, monkeypatch):
    package = tmp_path / "options_package"
    package.mkdir()
    for name, text in {"__init__": "", "base": BASE, "targets": TARGETS}.items():
        (package / f"{name}.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    return "options_package.targets"


def test_unpacked_typed_dict_gives_its_keys_and_those_of_its_bases(targets):
    found = signature(f"{targets}.load").parameters
    assert [*found] == ["path", "size", "low", "needed", "spare", "share", "kind", "dims", "name"]
    assert [name for name, each in found.items() if each.required] == ["path", "needed", "share", "name"]
    assert (found["name"].annotation, found["spare"].annotation) == ("str", "int")
    assert not signature(f"{targets}.load").accepts_any and signature(f"{targets}.anything").accepts_any
    assert [*signature(f"{targets}.plain").parameters] == ["needed", "spare", "share"]


def test_aliases_are_what_they_stand_for(targets):
    found = signature(f"{targets}.load").parameters
    assert found["size"] == Parameter("Annotated[int, Ge(1)]", required=False)
    assert found["low"] == Parameter("Annotated[int, Field(ge=0, description='d')] | None", required=False)
    assert found["needed"] == Parameter("Annotated[int, Ge(1)] | None", required=True)
    assert found["kind"].annotation == "Literal['a', 'b']"


def test_bounds_hold_for_a_number_and_for_each_in_a_list(targets):
    found = signature(f"{targets}.load").parameters

    def refused(key, value):
        return misfit(key, value, found[key].annotation)

    assert refused("share", 0.5) is refused("needed", None) is refused("low", None) is refused("dims", [1]) is None
    assert refused("share", 0) == "share=0: must be above 0"
    assert refused("share", 2) == "share=2: must be at most 1"
    assert refused("share", float("inf")) == "share=inf: must be above 0"
    assert refused("needed", 0) == "needed=0: must be at least 1"
    assert refused("low", -1) == "low=-1: must be at least 0"
    assert refused("dims", [4, 0]) == "dims=[4,0]: must be above 0"
    assert misfit("key", "auto", "Annotated[int, Ge(1)] | Literal['auto']") is None


def test_choices_are_those_of_a_value_or_of_each_in_a_list():
    assert misfit("key", "x", "Literal['auto'] | bool") == "key=x: choose from auto, true, false"
    listed = misfit("key", ["a", "bbc"], "Sequence[Literal['a', 'bb']] | None")
    assert listed == "key=[a,bbc]: choose from a, bb; did you mean bb?"
    assert "choose from" not in misfit("key", "x", "int | Literal['auto']") + misfit("key", "x", "bool")
