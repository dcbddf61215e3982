"""`python -m experiments` lists the commands, and with the name of one, such as `train`, becomes it."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path

from experiments.config.hints import hint

COMMANDS = {  # what each is for, and its most useful line
    "train": ("train a model and say whether it got better", "model=qwen3vl_2b data=vdr_en"),
    "evaluate": ("evaluate a model without training it", "model=saved model.name=FOLDER"),
    "plan": ("what a line would run, take and cost", "model=qwen3vl_2b data=vdr_en --gpu 24GB"),
    "compare": ("which run is better, and whether that is chance", "RUN RUN"),
    "report": ("tables and figures over runs or a sweep", "multirun/DAY/TIME"),
}
_COMPLETION = 'eval "$(python -m experiments completion)"'


def main() -> int:
    """List the commands, or become the one that is named; return the exit code where there is none such."""
    name, *arguments = sys.argv[1:] or ["help"]
    if name in COMMANDS:
        flags = sys.orig_argv[1 : sys.orig_argv.index("-m")]  # of Python
        os.execv(sys.executable, [sys.executable, *flags, "-m", f"experiments.{name}", *arguments])
    if name == "completion":
        sys.stdout.write(Path(__file__).with_name("completion.bash").read_text(encoding="utf-8"))
        return 0
    if name in ("help", "-h", "--help"):
        _list()
        return 0
    if name == "--version":
        from experiments.runs.provenance import version_text

        sys.stdout.write(version_text())
        return 0
    is_setting = "=" in name or name[:1] == "-"
    meant = f"type a command first: {shlex.join(['python', '-m', 'experiments.train', *sys.argv[1:]])}"
    sys.stderr.write(f"error: {name} is no command; {meant if is_setting else hint(name, COMMANDS, COMMANDS)}\n")
    return 2


def _list() -> None:
    lines = {f"python -m experiments.{name} {example}": what for name, (what, example) in COMMANDS.items()}
    lines["trackio show --project experiments"] = "the dashboard; a run prints the whole line"
    lines[_COMPLETION] = "TAB completes options and keys; put it into ~/.bashrc"
    width = max(map(len, lines))
    sys.stdout.writelines(f"{line:{width}}  {what}\n" for line, what in lines.items())
    sys.stdout.write(
        "\nEach explains itself with --help. python -m experiments.train alone trains offline, without a GPU.\n"
    )


if __name__ == "__main__":
    sys.exit(main())
