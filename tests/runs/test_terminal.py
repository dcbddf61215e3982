"""What a command shows, on a terminal and in a file, and what a refused one leaves: real processes, a real pty."""

import os
import pty
import re
import signal
import subprocess
import sys
import termios
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from experiments.runs.terminal import Captured, clock

LINE = [sys.executable, "-m", "lively_task", "tracking=none", "cache_dir=cache", "evaluator.cache_dir=null"]
ENVIRONMENT = os.environ | {
    **{"PYTHONPATH": f"{Path(__file__).parent}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"},
    **{"TERM": "xterm", "COLUMNS": ""},
}
SIGNALS = (signal.SIGINT, signal.SIGTERM)
OF_LIBRARIES = ("a library is deprecated", "a library's warning", "a library's notice")


class OnTerminal:
    """A process on a terminal of its own; a signal is sent once it shows its step."""

    def __init__(self, folder, number=None, line=LINE, columns=110):
        folder.mkdir()
        self.number, self.began = number, time.monotonic()
        self.pid, self.terminal = pty.fork()
        if self.pid == 0:
            os.chdir(folder)
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            termios.tcsetwinsize(0, (40, columns))
            os.execve(line[0], line, ENVIRONMENT)

    def end(self):
        """Return exit code, what was written, and for how many seconds."""
        said = b""
        while chunk := self._read():
            said += chunk
            if self.number and b"step 1/4" in said:
                os.kill(self.pid, self.number)
                self.number = None
        seconds = time.monotonic() - self.began
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1]), said.decode(), seconds

    def _read(self):
        try:
            return os.read(self.terminal, 65536)
        except OSError:  # it has ended
            return b""


@pytest.fixture(scope="module")
def ended(tmp_path_factory):
    """The same run through a pipe, on a terminal, and ended there by two signals: all at once, since they sleep."""
    folder = tmp_path_factory.mktemp("runs")
    (folder / "piped").mkdir()
    pipe = subprocess.PIPE
    piped = subprocess.Popen(LINE, cwd=folder / "piped", env=ENVIRONMENT, stdout=pipe, stderr=pipe, text=True)
    closed = {}
    for name, line in (("closed", LINE), ("closed sweep", [*LINE[:3], "-m", *LINE[3:], "seed=1"])):
        (folder / name).mkdir()
        closed[name] = subprocess.Popen(line, cwd=folder / name, env=ENVIRONMENT, stdout=pipe, stderr=pipe, text=True)
    line = [*LINE[:3], "-m", *LINE[3:], "seed=1,2", "hydra.launcher.n_jobs=2"]
    shown = [OnTerminal(folder / "sweep", line=line, columns=75), OnTerminal(folder / "shown")]
    shown += [OnTerminal(folder / each.name, each) for each in SIGNALS]
    for each in closed.values():
        with each.stdout:
            each.stdout.readline()  # as `| head -1` does
    with ThreadPoolExecutor() as readers:
        ends = list(readers.map(OnTerminal.end, shown))
    found = dict(zip(["sweep", "shown", *(each.name for each in SIGNALS)], ends, strict=True))
    out, err = piped.communicate()
    found |= {name: (each.wait(), each.stderr.read()) for name, each in closed.items()}
    for each in closed.values():
        each.stderr.close()
    return folder, found | {"piped": (piped.returncode, out, err)}


def test_piped_output_is_lines_without_control_codes_or_bars(ended):
    code, out, err = ended[1]["piped"]
    assert (code, err) == (0, "")
    assert not {"\r", "\x1b"} & {*out} and "%|" not in out
    lines = out.splitlines()
    assert lines[0] == f"task {' '.join(LINE[3:])}: reading the settings"
    assert lines[1].startswith("lively_task: qwen3vl_tiny-report_pages")
    told = "training  step 1/4  loss 2  1:05 left"
    assert lines[2:] == ["loading libraries", "training", "warning: mind this", told, "saving  1:01 left"]


def test_a_terminal_shows_one_line_that_is_redrawn_in_few_bytes(ended):
    code, said, seconds = ended[1]["shown"]
    assert code == 0
    drawn = re.findall(r"\r\x1b\[K([^\r]*)", said)
    line = r"training  step 1/4  loss 2  Loading weights \d+/40, 0:0\d to go  1:0\d left"
    assert any(re.fullmatch(line, each) for each in drawn), "\n".join(drawn)
    assert "warning: mind this\r\n" in said and drawn[-1] == ""
    assert len(said) / seconds < 200 and "%|" not in said


def test_a_sweep_s_line_tells_of_the_jobs_that_run_and_of_the_time_left_for_all(ended):
    code, said, seconds = ended[1]["sweep"]
    assert code == 0
    drawn = re.findall(r"\r\x1b\[K([^\r]*)", said)
    named = r"0/2 done \| #0 seed=1: starting \| #1 seed=2: starting"
    short = r"0/2 done, 1:0\d left \| #0 step 1/4 loss 2 \| #1 step 1/4 loss 2"  # names where there is room for them
    for line in (named, short):
        assert any(re.fullmatch(line, each) for each in drawn), "\n".join(drawn)
    assert re.search(r"\r#[01] seed=[12]: \d+ s\r\n", said.replace("\x1b[K", "")) and len(said) / seconds < 400


def test_what_libraries_say_is_in_the_log_and_not_on_the_terminal(ended):
    folder, found = ended
    for name in ("piped", "shown"):
        (log,) = (folder / name).rglob("*.log")
        assert all(each in log.read_text() and each not in found[name][1] for each in OF_LIBRARIES)
        assert "training  step 1/4  loss 2  1:05 left" in log.read_text()


@pytest.mark.parametrize(
    ("number", "code", "words"), [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "ended by SIGTERM")]
)
def test_a_signal_leaves_a_last_line_that_says_how_to_go_on(ended, number, code, words):
    found, said, _ = ended[1][number.name]
    assert (found, said.splitlines()[-1]) == (code, f"{words}; the same line with trainer.resume=auto goes on")
    assert "Traceback" not in said and said.rpartition("\x1b[K")[2].splitlines()[0] == ""


def test_a_run_that_is_refused_late_leaves_what_was_there_before_alone(tmp_path):
    refused = []
    for name, before in (("empty", None), ("outputs", "outputs"), ("typed", "elsewhere/here")):
        (tmp_path / name / (before or "")).mkdir(parents=True)
        line = [*LINE, "seed=9", *(["hydra.run.dir=elsewhere/here"] if name == "typed" else [])]
        refused.append(subprocess.Popen(line, cwd=tmp_path / name, env=ENVIRONMENT, stderr=subprocess.PIPE, text=True))
    there = sorted(tmp_path.rglob("*"))
    for process in refused:
        assert process.communicate()[1] == "error: model.peft.target_modules: no such layer\n"
        assert process.returncode == 2
    assert sorted(tmp_path.rglob("*")) == there


def test_a_pipe_that_nobody_reads_any_more_stops_neither_the_run_nor_is_it_told_of(ended):
    folder, found = ended
    assert found["closed"] == found["closed sweep"] == (0, "")
    (log,) = (folder / "closed").rglob("*.log")
    assert "saving  1:01 left" in log.read_text() and "Logging error" not in log.read_text()


def test_a_long_line_is_logged_at_once():
    captured, began = Captured("library", sys.stderr, live=True), time.monotonic()
    captured.write("a" * 30_000 + "\n")
    captured.write("a" * 30_000 + " 50%|#   | 3/6 [00:10<00:10]")
    assert time.monotonic() - began < 2 and captured.bar().endswith("3/6, 0:10 to go")


def test_a_bar_that_lasts_is_told_in_words():
    bar = Captured("library", sys.stderr, live=True)
    bar.write("a line\r  0%|          | 0/6 [00:00<?, ?it/s]\r 50%|#   | 3/6 [00:01<00:01]")
    assert bar.bar() == ""
    bar.write("\rmodel.safetensors:  25%|##   | 1.1G/4.4G [01:10<1:03:30, 3.0MB/s]")
    assert bar.bar() == "model.safetensors 1.1G/4.4G, 1:03:30 to go"


def test_a_duration_is_read_as_on_a_clock():
    assert [clock(seconds) for seconds in (4.6, 65, 7265)] == ["0:05", "1:05", "2:01:05"]
