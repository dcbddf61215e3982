"""What a sweep would do, before it does it: jobs, duplicates, what is done, what is refused, time, energy and CO2.

python -m experiments.plan loss.mini_batch_size=1,4,16 seed=42,43     the line of experiments.train, with -m or without
"""

from __future__ import annotations

import functools
import shlex
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hydra import version
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.core.plugins import Plugins
from hydra.core.utils import JobRuntime, setup_globals
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from experiments import cli
from experiments.config import checks, fits_memory, secrets, tiny_models
from experiments.config.architecture import Architecture, read_architecture
from experiments.config.errors import ConfigError, one_line
from experiments.config.hints import select
from experiments.config.model_files import named
from experiments.config.options import CONFIG_NAME
from experiments.reports.footprint import needs
from experiments.reports.tables import energy_text, markdown_table, shown, time_text
from experiments.runs import footprint, sweeps
from experiments.runs.estimate import Estimate, Past, estimate, past_runs
from experiments.runs.identity import job_identity
from experiments.runs.provenance import version_text, visible_gpus
from experiments.runs.run import is_done

_HELP = """Say what a sweep would do, without doing it; loads no weights.

  python -m experiments.plan [group=option[,option] ...] [key=value[,value] ...] [--gpu 24GB|"RTX 4090"]

Type the overrides of the sweep, and the GPU if it isn't the one at hand. Exit code 2 if a job would be refused.
"""
PATIENCE_S = 1.5  # with the Hub
_LAUNCHES_HERE = (".ProcessLauncher", ".BasicLauncher")  # not on other nodes
_SWEEPS_ALONE = ("hydra.launcher", "hydra/launcher", "hydra.sweep", "hydra/sweeper")  # a single run ignores them


@dataclass
class Job:
    """A job of the sweep."""

    number: int
    overrides: list[str]
    point: dict[str, str]  # the value of each swept key
    config: dict[str, Any]
    identity: str = ""
    status: str = "to run"  # or: refused, same as job N, done
    error: str = ""
    estimate: Estimate | None = None
    commits: dict[str, str] = field(default_factory=dict)  # of what it names on the Hub
    assumed: set[str] = field(default_factory=set)  # what of this the Hub wasn't asked for
    architecture: Architecture | None = None  # of its model, where it is one whose memory is counted


def compose(overrides: Sequence[str], config_dir: str | None = None) -> tuple[DictConfig, list[Job]]:
    """Return the sweep's config and the jobs that `experiments.train -m` would run, in their order, each checked.

    Args:
        overrides: As typed.
        config_dir: The user's own options, as `--config-dir` names them.

    Raises:
        ConfigError: If another sweeper than Hydra's basic one chooses the jobs while it runs.
    """
    cli.take_allowed(overrides)
    loader = cli.Loader(cli.search_path(config_dir))
    master = loader.load_configuration(CONFIG_NAME, [*overrides], RunMode.MULTIRUN)
    HydraConfig.instance().set_config(master)
    if not str(master.hydra.sweeper._target_).endswith(".BasicSweeper"):
        name = master.hydra.runtime.choices["hydra/sweeper"]
        raise ConfigError(f"hydra/sweeper={name} chooses its jobs while it runs: there is no plan before")
    params = [f"{key}={value}" for key, value in (master.hydra.sweeper.params or {}).items()]
    parsed = OverridesParser.create(config_loader=loader).parse_overrides([*params, *master.hydra.overrides.task])
    (batch,) = BasicSweeper.split_arguments(parsed, max_batch_size=None)
    keys, launcher = cli.swept_keys(master), master.hydra.launcher

    @functools.cache  # it takes a seventh of a second, and jobs share it
    def compose_options(chosen: tuple[str, ...]) -> DictConfig:
        return loader.load_sweep_config(master, [*chosen])

    jobs = []
    for number, line in enumerate(batch):
        job = Job(number, line, cli.swept_point(keys, line), config={"overrides": line})  # if a value is missing
        try:
            job.config = _plain(line, loader, compose_options)
            checks.check(job.config)
            if _runs_here(master) and launcher.get("memory_limit") is None:
                fits_memory.check(job.config["loss"])
        except ConfigError as error:
            job.status, job.error = "refused", str(error)
        jobs.append(job)
    ask_hub(jobs)
    for job in jobs:
        job.identity = job_identity(job.config, commits=job.commits, swept=keys)
    return master, jobs


def _runs_here(master: DictConfig) -> bool:
    return str(master.hydra.launcher._target_).endswith(_LAUNCHES_HERE)


def check_memory(jobs: Sequence[Job], gpu: footprint.Gpu | None) -> None:
    """Refuse the jobs that a GPU, if one is known, is too small for."""
    for job in jobs:
        if job.status == "refused":  # who knows what its values are
            continue
        job.architecture = read_architecture(job.config["model"])
        try:
            if gpu and job.architecture:
                footprint.check(job.config, job.architecture, gpu)
        except ConfigError as error:
            job.status, job.error = "refused", str(error)


def ask_hub(jobs: Sequence[Job]) -> None:
    """Let each job know the commits that it would load, as a sweep asks for them, but not for longer than a moment.

    A source that the Hub says nothing of until then is assumed to stand where it was last downloaded; a job whose
    source it doesn't give is refused.
    """
    jobs = [job for job in jobs if job.status != "refused" and [*named(job.config)]]
    if not jobs:
        return
    from experiments.config import hub  # it takes a while

    answers = hub.ask({source for job in jobs for source in hub.sources(job.config)}, PATIENCE_S)
    for job in jobs:
        for source in hub.sources(job.config):
            if isinstance(answer := answers.get(source), ConfigError):
                job.status, job.error = "refused", str(answer)
                break
            if answer is None:
                answer = hub.last_downloaded(source) or ""
                job.assumed.add(source.name if answer else f"{source.name} (not downloaded yet)")
            job.commits[source.label] = answer


def _plain(
    line: list[str], loader: ConfigLoaderImpl, compose_options: Callable[[tuple[str, ...]], DictConfig]
) -> dict[str, Any]:
    """Return a job's config as plain containers: Hydra composes the options chosen, then sets values."""
    values: list[Override] = []
    chosen: list[str] = []
    for override in OverridesParser.create(config_loader=loader).parse_overrides(line):
        if loader.repository.group_exists(override.key_or_group):
            chosen.append(str(override.input_line))
        else:
            values.append(override)
    base = compose_options(tuple(chosen))
    config = OmegaConf.masked_copy(base, [str(key) for key in base if key != "hydra"])
    OmegaConf.set_struct(config, True)
    loader._apply_overrides_to_config(values, config)
    plain = cli.resolve(config)
    if select(plain, "trainer.resume") == "auto":
        plain["trainer"]["resume"] = None  # a sweep takes up its own
    return plain


def judge(jobs: Sequence[Job], master: DictConfig, past: Sequence[Past]) -> Path | None:
    """Say of each job whether it is a duplicate, done or to run, and what it will cost, given past runs.

    Returns:
        The directory of the sweep that our launchers would go on with, as they choose it.
    """
    folder = None
    if str(master.hydra.launcher._target_).startswith("hydra_plugins.experiments_launcher."):
        folder = sweeps.choose(cli.wanted_sweep(master), [job.identity for job in jobs])
    entries = (sweeps.read_sweep(folder) or {})["jobs"] if folder else []
    done = {each["identity"] for each in entries if folder and is_done(folder / each["dir"])}
    first: dict[str, int] = {}
    for job in jobs:
        if job.status == "refused":
            continue
        if job.identity in first:
            job.status = f"same as job {first[job.identity]}"
        elif job.identity in done:
            job.status = "done"
        else:
            job.estimate = estimate(job.config, past)
        first.setdefault(job.identity, job.number)
    return folder


def page(jobs: Sequence[Job], num_at_once: int, folder: Path | None, country: str | None) -> str:
    """Return what is printed: a row for each job, refusals, and the sum."""
    keys = [*dict.fromkeys(key for job in jobs for key in job.point)]
    short = [key.rpartition(".")[2] for key in keys]
    names = [name if short.count(name) == 1 else key for key, name in zip(keys, short, strict=True)]
    rows = [[str(job.number), *(job.point.get(key, "") for key in keys), job.status, *_cells(job)] for job in jobs]
    parts = [markdown_table(["job", *names, "status", "time", "energy", "CO2", "from"], rows)]
    if refused := [job for job in jobs if job.status == "refused"]:
        parts.append("\n".join(f"job {job.number} refused: {one_line(job.error)}" for job in refused))
    return "\n\n".join([*parts, "\n".join(_sums(jobs, num_at_once, folder, country))])


def _cells(job: Job) -> list[str]:
    if job.status != "to run":
        return ["–"] * 4
    if (found := job.estimate) is None:
        return ["?", "?", "?", "no past run"]
    energy = "?" if found.energy_kwh is None else energy_text(found.energy_kwh)
    emissions = "?" if found.emissions_kg is None else f"{1000 * found.emissions_kg:.3g} g"
    return [time_text(found.seconds), energy, emissions, found.basis]


def _sums(jobs: Sequence[Job], num_at_once: int, folder: Path | None, country: str | None) -> list[str]:
    counts = Counter("the same as another" if job.status.startswith("same") else job.status for job in jobs)
    lines = [f"Jobs:   {len(jobs)}: {', '.join(f'{count} {name}' for name, count in counts.items())}"]
    to_run = [job for job in jobs if job.status == "to run"]
    known = [job.estimate for job in to_run if job.estimate]
    if folder is not None:
        how = "is going on in" if sweeps.is_held(folder) else "goes on with" if to_run else "has ended in"
        lines.append(f"Sweep:  {how} {shown(folder)}")
    if assumed := sorted({name for job in jobs for name in job.assumed}):
        lines.append(f"Hub:    not asked; assumed to stand where it was last downloaded: {', '.join(assumed)}")
    if known:
        seconds = sum(each.seconds for each in known)
        rest = f", and of {len(to_run) - len(known)} more without a past run unknown" * (len(known) < len(to_run))
        lines.append(f"Time:   about {_at_once(seconds, known, num_at_once)}{rest}")
        kwh = [each.energy_kwh for each in known if each.energy_kwh is not None]
        kg = [each.emissions_kg for each in known if each.emissions_kg is not None]
        if kwh:
            place = f" with the electricity of {country}" if country else ""
            partly = "" if len(kwh) == len(to_run) else f" (without {len(to_run) - len(kwh)} jobs)"
            lines.append(f"Energy: about {energy_text(sum(kwh))}, {1000 * sum(kg):.3g} g CO2{place}{partly}")
        if unlike := [*dict.fromkeys(key for each in known for key in each.unlike)]:
            lines.append(f"        a guess: the past runs differ in {', '.join(unlike)}")
    elif to_run:
        lines.append("Time:   unknown: no past run of this model on this data")
    return lines


def _at_once(seconds: float, known: Sequence[Estimate], num_at_once: int) -> str:
    """Return the time of all jobs: on a CPU, jobs at once share its cores."""
    spread = max((each.spread for each in known if each.spread == each.spread), default=None)
    sure = f" (±{spread:.0%})" if spread is not None else ""
    if num_at_once == 1 or len(known) == 1:
        return f"{time_text(seconds)}{sure}"
    least = max(seconds / num_at_once, *(each.seconds for each in known))
    return f"{time_text(least)} to {time_text(seconds)}{sure}, {num_at_once} jobs at once"


def _needs(jobs: Sequence[Job], gpu: footprint.Gpu | None, is_asked: bool) -> str | None:
    """Return what the job needs that needs the most of a GPU; where no model's is known, that if it was asked for."""
    known = [(job, job.architecture) for job in jobs if job.architecture]
    if not known:
        is_uncounted = is_asked and any(job.status != "refused" for job in jobs)
        said = "memory and time on a GPU are counted for Qwen3-VL embedders alone, see docs/gpus.md"
        return f"GPU:    {gpu.name}: {said}" if gpu and is_uncounted else None
    job, model = max(known, key=lambda each: footprint.footprint(each[0].config, each[1]).gpu)
    title = f"\nThe largest is job {job.number}:" if len(jobs) > 1 else ""
    return f"{title}\n{needs(job.config, model, [gpu] if gpu else [*map(footprint.parse_gpu, footprint.COMMON)])}"


def _warnings(jobs: Sequence[Job], choices: DictConfig, gpu: footprint.Gpu | None) -> list[str]:
    """Return what is said of tiny models that would meet the user's own data, each once; see `tiny_models`."""
    found = []
    for job in jobs:
        if job.status == "refused":  # who knows what its values are
            continue
        of_job = {str(group): str(option) for group, option in choices.items()} | job.point
        found.append(tiny_models.warning(job.config, of_job, gpu.memory if gpu else None))
    return [*dict.fromkeys(filter(None, found))]


def _take_gpu(arguments: list[str]) -> footprint.Gpu | None:
    """Take --gpu out of what was typed, which Hydra doesn't know."""
    for place, argument in enumerate(arguments):
        if argument.partition("=")[0] == "--gpu":
            flag, _, value = argument.partition("=")
            del arguments[place]
            if not value and place < len(arguments):
                value = arguments.pop(place)
            return footprint.parse_gpu(value)
    return None


def main() -> int:
    """Print the plan of the sweep on the command line and return the exit code."""
    if {"--help", "-h", "--version"} & {*sys.argv[1:]} or sys.argv[1:] == ["help"]:
        sys.stdout.write(version_text() if "--version" in sys.argv else _HELP)
        return 0
    cli.prepare(sys.argv)
    words = sys.argv[1:]
    try:
        gpu = _take_gpu(sys.argv)
    except ConfigError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    arguments = sys.argv[1:]
    if not (typed_sweep := bool({"-m", "--multirun"} & {*arguments})):
        sys.argv.insert(1, "-m")  # so that mistakes are explained as those of a sweep
    try:
        secrets.check_typed(arguments)
        typed = cli.parse_arguments(also=["--gpu"])
        version.setbase(cli.HYDRA_VERSION_BASE)
        JobRuntime.instance().set("name", "train")
        setup_globals()
        Plugins.instance()
        master, jobs = compose(typed.overrides, typed.config_dir)
        is_asked = gpu is not None
        gpu = gpu or (footprint.gpu_here() if _runs_here(master) else None)
        check_memory(jobs, gpu)
    except Exception as error:  # of whatever kind Hydra raises for a mistake
        sys.stderr.write(f"error: {one_line(cli.explain(error, words, also=['--gpu']))}\n")
        return 2
    try:
        roots = [Path("outputs"), Path("multirun"), Path(str(master.hydra.sweep.dir)).parent]
        folder = judge(jobs, master, past_runs(roots))
    except (ConfigError, OSError) as error:
        sys.stderr.write(f"error: {one_line(str(error))}\n")
        return 2
    launcher = master.hydra.launcher
    num_at_once = 1 if str(launcher._target_).endswith(".BasicLauncher") else len(jobs)  # Slurm takes them all
    if (n_jobs := launcher.get("n_jobs")) is not None:
        num_at_once = min(int(n_jobs), len(visible_gpus()) or int(n_jobs))
    country = next((code for job in jobs if (code := select(job.config, "tracking.country_iso_code"))), None)
    sys.stdout.write(page(jobs, num_at_once, folder, country) + "\n")
    if text := _needs(jobs, gpu, is_asked):
        sys.stdout.write(f"{text}\n")
    sys.stdout.writelines(f"Warning: {text}\n" for text in _warnings(jobs, master.hydra.runtime.choices, gpu))
    if any(job.status == "refused" for job in jobs):
        return 2
    of_a_sweep = any(job.point for job in jobs) or any(each.startswith(_SWEEPS_ALONE) for each in typed.overrides)
    needed = ["-m"] if of_a_sweep and not typed_sweep else []
    sys.stdout.write(f"Start:  {shlex.join(['python', '-m', 'experiments.train', *needed, *arguments])}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
