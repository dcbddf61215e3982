"""A line as someone new is likely to type it, put as it is typed here: other tools' names and flags, a file as `data`.

`mend` is asked once Hydra has refused a line; the line that it makes can be pasted.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from experiments.config import tables
from experiments.config.hints import ELSEWHERE, dotted_keys, nearest, quoted
from experiments.config.options import CONF
from experiments.config.signatures import signature

_GPU = ("gpu", "gpus", "gpu_id", "device", "devices", "cuda")
_TRACKERS = ("wandb", "tensorboard", "mlflow", "comet_ml", "clearml", "neptune")
_COLUMNS = {"query": "query", "positive": "page"}  # of a table, as conf/data/table.yaml has them
_LIES_AT = {"model": "name", "data": "path"}  # the key of an option that says where what it stands for lies
# What is in a folder that holds data: tables, or what the datasets library reads.
_OF_DATA_SETS = (
    "state.json",
    "dataset_dict.json",
    *(f"{at}*{each}" for at in ("", "*/") for each in tables.IN_FOLDERS),
)


@dataclass
class Mended:
    """A line that was typed, its guesses put right one by one."""

    words: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)  # what else is to be said
    given: set[str] = field(default_factory=set)  # the keys and groups that were typed
    unknown: list[str] = field(default_factory=list)  # words as they were typed
    environment: list[str] = field(default_factory=list)  # what stands before the command
    num_processes: str = ""  # for torchrun

    def say(self, command: Sequence[str]) -> str:
        """Return what was wrong and the whole line, as it is pasted into a shell."""
        if self.num_processes:
            command = ["torchrun", "--nproc_per_node", self.num_processes, *command[1:]]
        are = "is" if len(self.unknown) == 1 else "are"
        unknown = [f"{' and '.join(self.unknown)} {are} not understood"] if self.unknown else []
        line = " ".join([*self.environment, shlex.join([*command, *self.words])])
        return f"{'; '.join([*unknown, *self.notes])}; type {line}"


def mend(
    typed: Sequence[str],
    flags: Mapping[str, bool],
    groups: Mapping[str, Sequence[str]],
    compose: Callable[[list[str]], dict[str, Any]],
    unused: Sequence[str] = (),
) -> Mended | None:
    """Return the line that was meant; None where none of its words is a likely guess.

    Args:
        typed: After the command.
        flags: Those that there are, and whether each takes a value.
        groups: Their options.
        compose: Returns the config of some options (`group=option`).
        unused: Groups that the command makes no use of.
    """
    line, joined = Mended(), [*_joined(typed, flags, groups)]
    meant: list[tuple[str, str]] = []
    line.given = {ELSEWHERE.get(name, name) for word, _ in joined if (name := word.partition("=")[0])}
    for word, original in joined:
        words = _placed(word, groups, flags, line)
        if "trainer" in unused and words != [original] and not any(each.startswith("data.eval=") for each in words):
            words = [re.sub("^data.train=", "data.eval=", each) for each in words]  # all of it is evaluated
        meant += [(each, original) for each in words]
        line.words += words
        if words != [original]:
            line.unknown.append(original)
    chosen = [word for word in line.words if _is_option(*word.partition("=")[::2], groups)]
    keys = [*_keys(compose(chosen), unused)]
    line.words = []
    for word, original in meant:
        name, is_set, value = word.partition("=")
        if key := _key(word, keys, groups, typed):
            line.unknown += [original] * (original not in line.unknown)
            word = f"{key}={value}"
        elif word != original and name in groups:
            word = _chosen(name, value, groups, line)
        elif word != original and is_set and name not in keys:
            return None  # no guess: neither here nor elsewhere is there such a name
        line.words.append(word)
    line.unknown.sort(key=[original for _, original in joined].index)
    return line if line.unknown else None


def _chosen(group: str, option: str, groups: Mapping[str, Sequence[str]], line: Mended) -> str:
    """Return what chooses an option; where it is none, that is noted."""
    if all(_is_option(group, each, groups) for each in option.split(",")):
        return f"{group}={option}"
    near = nearest(option, groups[group])
    line.notes.append(f"{option} is no option of {group}" + ", --help lists them" * (not near))
    return f"{group}={near[0] if near else 'NAME'}"


def _keys(config: dict[str, Any], unused: Sequence[str]) -> Iterator[str]:
    """Yield the keys of a config, and with a `+` the arguments that its targets take besides."""
    keys = {key for key in dotted_keys(config) if key.partition(".")[0] not in (*unused, "hydra")}
    yield from keys
    for group, node in config.items():
        if group not in unused and isinstance(node, dict) and "_target_" in node:
            more = (f"{group}.{name}" for name in signature(node["_target_"]).parameters)
            yield from (f"+{key}" for key in more if key not in keys)


def _is_option(group: str, option: str, groups: Mapping[str, Sequence[str]]) -> bool:
    return option in groups.get(group, ())


def _key(word: str, keys: Sequence[str], groups: Mapping[str, Sequence[str]], typed: Sequence[str]) -> str | None:
    """Return the key that was meant by an unknown one; None where it is known or nothing is sure."""
    name, is_set, _ = word.partition("=")
    if not is_set or not re.fullmatch(r"[A-Za-z][\w.]*", name) or name in {*keys, *groups}:
        return None
    group, _, last = name.rpartition(".")
    meant = ELSEWHERE.get(last, "")
    if meant == "hydra.run.dir" and group in ("", "trainer"):
        return "hydra.sweep.dir" if {"-m", "--multirun"} & {*typed} else meant
    if group in ("", meant.rpartition(".")[0]) and (found := {meant, f"+{meant}"} & {*keys}):
        return found.pop()
    alike = [key for key in keys if key.rpartition(".")[2] == name]
    there = [key for key in alike if key[0] != "+"] or alike
    return there[0] if len(there) == 1 else None


def _placed(word: str, groups: Mapping[str, Sequence[str]], flags: Mapping[str, bool], line: Mended) -> list[str]:
    """Return what is typed for a word that tells a model or data by the place where they lie, or a GPU; else it."""
    name, is_set, value = word.partition("=")
    if not is_set:
        return [word] if word.startswith("-") else _bare(word, groups, line)
    key = ELSEWHERE.get(name, name)
    if name in ("report_to", "trainer.report_to"):
        return _tracked(value, line)
    if name.removeprefix("model.").removeprefix("trainer.") in _GPU:
        return _gpu(value, name.endswith("s"), flags, line)
    chooses_data = "data" in line.given or any(each.startswith("data=") for each in line.words)
    if key in ("data.train", "data.eval", "data.path") and not chooses_data:
        value = quoted(value) if Path(value).expanduser().exists() else value
        return ["data=hub" if key == "data.path" else "data=table", f"{key}={value}"]
    is_place = Path(place := value.strip("'\"")).expanduser().exists()
    if name == "model.name" and not {"model", "experiment"} & line.given:
        return (_at("model", place, line) if is_place or "," not in place else []) or ["model=saved", word]
    if key not in _LIES_AT or _is_option(key, value, groups) or (re.search(r"[(\[{$]|^null$", value) and not is_place):
        return [word if key == name or "." in key else f"{key}={value}"] if key in groups else [word]
    values = [place] if is_place else place.split(",")
    found = [[f"{key}={each}"] if _is_option(key, each, groups) else _at(key, each, line) for each in values]
    if not all(found) or len({(len(each), each[0].partition("=")[0]) for each in found}) > 1:
        return [f"{key}={value}"]
    parts = [",".join(dict.fromkeys(word.partition("=")[2] for word in words)) for words in zip(*found, strict=True)]
    return [f"{word.partition('=')[0]}={part}" for word, part in zip(found[0], parts, strict=True)]


def _tracked(value: str, line: Mended) -> list[str]:
    """Return what is typed for the name of a tracker."""
    line.notes.append("runs are tracked by Trackio, or not at all (tracking=none)")
    return ["tracking=none" if value in ("none", "null", "[]") else "tracking=trackio"]


def _bare(word: str, groups: Mapping[str, Sequence[str]], line: Mended) -> list[str]:
    """Return what is typed for an option, a model's folder or Hub name, or data without the name of a key."""
    if word in _TRACKERS:
        return _tracked(word, line)
    if len(having := [group for group, options in groups.items() if word in options]) == 1:
        return [f"{having[0]}={word}"]
    path = Path(word).expanduser()
    if any((path / file).exists() for file in ("modules.json", "config.json", "final")):
        return model_at(word)
    is_data = path.is_file() or (path.is_dir() and ((path / "dataset_dict.json").exists() or tables.in_folder(path)))
    if is_data or "/" not in word or path.suffix.lower() in tables.FORMATS or "model" in line.given:
        return (is_data and data_at(word)) or [word]
    return data_at(word) if _option_of("data", word) else _at("model", word, line)


def _at(group: str, place: str, line: Mended) -> list[str]:
    """Return what is typed for a model or data that lie there, and note what of it isn't there."""
    found, path = model_at(place) if group == "model" else data_at(place), Path(place).expanduser()
    is_path = place[:1] in ("/", ".", "~") or place.count("/") > 1 or path.suffix.lower() in tables.FORMATS
    if len(found) > 1 and not path.exists():
        there = f"there is no {place} here"
        line.notes.append(there if is_path else f"{there}, so it is looked for on the Hub")
    elif group == "data" and path.is_dir() and not any(True for each in _OF_DATA_SETS for _ in path.glob(each)):
        line.notes.append(f"{place} has no table; write one, with columns query and page (its files' names)")
        found = ["data=table", "data.train=" + quoted(f"{place.rstrip('/')}/train.csv")]
    return found


def model_at(place: str) -> list[str]:
    """Return what is typed for a model in a folder (its own or its run's) or on the Hub; nothing if neither."""
    if option := _option_of("model", place):
        return [f"model={option}"]
    folder = Path(place).expanduser()
    if "/" not in place and not folder.is_dir():
        return []
    if (folder / "final").is_dir():
        folder, place = folder / "final", f"{place.rstrip('/')}/final"
    try:
        is_reranker = _saved(folder).get("model_type") == "CrossEncoder"
    except (OSError, ValueError):
        is_reranker = "rerank" in place.lower() and not folder.is_dir()
    return ["experiment=reranker" if is_reranker else "model=saved", f"model.name={quoted(place)}"]


def _saved(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "config_sentence_transformers.json").read_text())


def data_at(place: str) -> list[str]:
    """Return what is typed for data in a file, in a folder or on the Hub; nothing where it is none of them."""
    if option := _option_of("data", place):
        return [f"data={option}"]
    path = Path(place).expanduser()
    if path.suffix.lower() in tables.FORMATS and not path.is_dir():
        return [
            "data=table",
            f"data.train={quoted(place)}",
            *tables.column_overrides(tables.column_names(path), _COLUMNS),
        ]
    if path.is_dir() and not (path / "dataset_dict.json").is_file() and (found := tables.in_folder(path)):
        files = [f"data.{part}={quoted(str(file))}" for part, file in found.items()]
        return ["data=table", *files, *tables.column_overrides(tables.column_names(found["train"]), _COLUMNS)]
    if "/" not in place and not path.is_dir():
        return []
    has_no_splits = (path / "state.json").is_file()
    return ["data=hub", f"data.path={quoted(place)}", *["data.eval=null"] * has_no_splits]


def _option_of(group: str, place: str) -> str | None:
    """Return the option that is made for what lies there, which may be named without its owner."""
    for file in sorted((CONF / group).glob("*.yaml")):
        found = re.search(rf"^{_LIES_AT[group]}: ([\w-]+/([\w.-]+))", file.read_text(encoding="utf-8"), re.MULTILINE)
        if found and place.lower() in (found[1].lower(), found[2].lower()):
            return file.stem
    return None


def _gpu(value: str, counts: bool, flags: Mapping[str, bool], line: Mended) -> list[str]:
    """Note which GPU was asked for, which is said by the environment; to `plan` it may be any."""
    numbers = re.fullmatch(r"(?:cuda:)?(\d{1,2}(?:,\d{1,2})*)", value)
    used = "a GPU is used where there is one"
    if "--gpu" in flags and not re.fullmatch(r"cuda(:\d+)?|auto|true|cpu|\d", value):
        line.notes.append("which GPU it is for is a flag")
        return ["--gpu", value]
    if counts and numbers and value.isdigit() and int(value) > 1:
        line.num_processes = value
        line.notes.append("torchrun starts a process for each of several GPUs")
    elif numbers or value in ("cpu", "none", "false"):
        line.environment.append(f"CUDA_VISIBLE_DEVICES={numbers[1] if numbers else ''}")
        line.notes.append(f"{used}, and which one is said so")
    else:
        line.notes.append(f"{used}; CUDA_VISIBLE_DEVICES=0 before the line names one")
    return []


def _joined(
    typed: Sequence[str], flags: Mapping[str, bool], groups: Mapping[str, Sequence[str]]
) -> Iterator[tuple[str, str]]:
    """Yield each word as key=value where it is a flag or parted by spaces, and as it was typed."""
    rest = [*typed]
    while rest:
        word = rest.pop(0)
        name, _, value = word.partition("=")
        if word.startswith("-") and not re.fullmatch(r"-[\d.]+", word):
            known = [flag for flag in flags if flag == name or (name[:2] == "--" and flag.startswith(name))]
            if known or (name != "--resume" and nearest(name, flags)):
                yield word, word
                if known and flags[known[0]] and "=" not in word and rest:
                    yield (rest[0], rest.pop(0))
                continue
            key = name.lstrip("-").replace("-", "_")
            if "=" not in word and rest and not _is_setting(rest[0]):
                value = rest.pop(0)
                word += f" {value}"
            yield f"{key}={value or ('auto' if key == 'resume' else 'true')}", word
        elif value and (number := _num_of_path(value, rest)):
            whole = " ".join([value, *rest[:number]])
            del rest[:number]
            yield f"{name}={quoted(whole)}", f"{name}={whole} without quotes"
        elif rest and rest[0] == "=" and len(rest) > 1:
            yield f"{word}={rest[1]}", f"{word} = {rest[1]}"
            del rest[:2]
        elif rest and _is_a_key(word, groups) and not _is_setting(rest[0]):
            yield f"{word.removesuffix('=')}={rest[0]}", f"{word} {rest.pop(0)}"
        else:
            yield word, word


def _num_of_path(value: str, rest: Sequence[str]) -> int:
    """Return how many of the words that follow belong to a path with spaces that is there, typed without quotes."""
    settings = [number for number, word in enumerate(rest) if _is_setting(word)]
    numbers = range(1, min([*settings, len(rest)]) + 1)
    return next((each for each in numbers if Path(" ".join([value, *rest[:each]])).expanduser().exists()), 0)


def _is_setting(word: str) -> bool:
    return ("=" in word and not Path(word).exists()) or bool(re.match("-{1,2}[a-z]", word))


def _is_a_key(word: str, groups: Mapping[str, Sequence[str]]) -> bool:
    """Return whether a word without a value can only be a key."""
    is_option = any(word in options for options in groups.values())
    return bool(re.fullmatch(r"[A-Za-z_][\w.]*=?", word)) and not is_option and not Path(word).exists()
