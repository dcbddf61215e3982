"""The loopback Hub with the stand-ins on it, and commands typed as a user types them."""

import os
import shlex
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
from filelock import FileLock
from hub_server import TOKEN, LoopbackHub, Seen


@dataclass(frozen=True)
class Typed:
    """What came of a command."""

    line: str
    code: int
    output: str  # standard output and error, in this order
    seconds: float
    requests: list[Seen]

    @property
    def last(self) -> str:
        return self.output.strip().splitlines()[-1]


@pytest.fixture(scope="session")
def standins(tmp_path_factory, worker_id):
    """The folder of what lies on the Hub, built once, whichever process comes first."""
    shared = tmp_path_factory.getbasetemp() if worker_id == "master" else tmp_path_factory.getbasetemp().parent
    folder = shared / "hub"
    with FileLock(shared / "hub.lock"):
        if not folder.exists():
            import hub_standins

            hub_standins.build(folder.with_name("hub.partial"))
            folder.with_name("hub.partial").rename(folder)
    return folder


@pytest.fixture(scope="module")
def hub(standins, tmp_path_factory):
    """A Hub for the tests of one file."""
    with LoopbackHub(tmp_path_factory.mktemp("pushed")) as hub:
        for kind in ("models", "datasets"):
            for folder in sorted((standins / kind).glob("*/[!.]*")):
                hub.publish(kind, f"{folder.parent.name}/{folder.name}", folder)
        yield hub


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """The cache of what is downloaded, shared by the tests of one file."""
    return tmp_path_factory.mktemp("hf_home")


@pytest.fixture
def typed(hub, home, tmp_path):
    """Return the function that types a line in an empty folder and waits for its end."""

    def type_line(line: str, *, token: str | None = TOKEN, folder: Path = tmp_path, **environment: str) -> Typed:
        python, *arguments = shlex.split(line)
        assert python == "python"
        variables = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "PYTEST"))}
        variables |= hub.environment(home, token) | environment
        seen, start = len(hub.log), time.monotonic()
        done = subprocess.run([sys.executable, *arguments], cwd=folder, env=variables, capture_output=True, text=True)
        seconds = time.monotonic() - start
        typed = Typed(line, done.returncode, done.stdout + done.stderr, seconds, hub.log[seen:])
        sys.stdout.write(f"| {line} | {typed.code} | {seconds:.0f} | {len(typed.requests)} | {typed.last[:160]} |\n")
        return typed

    return type_line
