"""`python -m experiments`: the list of commands, the way into each, and their completion in a real bash."""

import os
import pty
import select
import subprocess
import sys
import time
from pathlib import Path

import pytest

from experiments.__main__ import COMMANDS


def typed(*arguments, cwd):
    command = [sys.executable, "-m", "experiments", *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True)


def test_the_commands_are_listed_without_anything_heavy(tmp_path):
    listed = typed(cwd=tmp_path)
    assert (listed.returncode, listed.stderr) == (0, "")
    for name in COMMANDS:
        assert f"python -m experiments.{name} " in listed.stdout
    seen = "import sys, experiments.__main__; print({'hydra', 'torch', 'numpy', 'pydantic'} & {*sys.modules})"
    assert subprocess.check_output([sys.executable, "-c", seen], text=True) == "set()\n"


def test_a_command_may_be_a_word_of_its_own(tmp_path):
    assert typed("compare", "--help", cwd=tmp_path).stdout.startswith("usage: python -m experiments.compare")
    for words, says in (
        (["trian"], "error: trian is no command; did you mean train?\n"),
        (
            ["seed=3", "-m"],
            "error: seed=3 is no command; type a command first: python -m experiments.train seed=3 -m\n",
        ),
    ):
        refused = typed(*words, cwd=tmp_path)
        assert (refused.returncode, refused.stdout, refused.stderr) == (2, "", says)


class Bash:
    """An interactive bash at a terminal, in which TAB is pressed."""

    def __init__(self, folder):
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        command = ["bash", "--norc", "--noprofile", "-i"]
        ours, theirs = pty.openpty()
        self.terminal, env = ours, os.environ | {"PATH": path, "PS1": "$ ", "TERM": "dumb"}
        self.process = subprocess.Popen(
            command, cwd=folder, env=env, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True
        )
        os.close(theirs)

    def type(self, text, until):
        """Type a text and return what is shown until another appears."""
        os.write(self.terminal, text.encode())
        shown, deadline = "", time.monotonic() + 60
        while until not in shown and time.monotonic() < deadline:
            if select.select([self.terminal], [], [], 0.05)[0]:
                shown += os.read(self.terminal, 65536).decode()
        return shown

    def close(self):
        self.process.kill()
        self.process.wait()
        os.close(self.terminal)


@pytest.fixture
def bash(tmp_path):
    shell = Bash(tmp_path)
    yield shell
    shell.close()


def test_tab_completes_commands_options_and_keys(bash, tmp_path):
    (tmp_path / "own" / "model").mkdir(parents=True)
    (tmp_path / "own" / "model" / "mine.yaml").write_text("defaults: [clip_tiny]\n")
    bash.type('eval "$(python -m experiments completion)"; echo do""ne\n', "\ndone")
    for line, completed in (
        ("python -m experiments.ev", "aluate "),
        ("python -m experiments.train model=qwen3vl_wa", "rm_tiny"),
        ("python -m experiments.train seed=3 loss.mini_batch_s", "ize="),
        ("python -m experiments plan --config-dir own model=mi", "ne"),
    ):
        bash.type("\x15", "")  # an empty line
        assert f"{line}{completed}" in bash.type(f"{line}\t", f"{line}{completed}")
    assert [path.name for path in tmp_path.iterdir()] == ["own"]
