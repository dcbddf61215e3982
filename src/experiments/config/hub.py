"""The Hugging Face Hub: whether it can be reached, which commit a name stands for, and its refusals in one line.

Asked before a library spends a minute on retries, and once for each source: what is loaded is that commit, whole.
"""

from __future__ import annotations

import functools
import json
import logging
import os
import socket
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from typing import Any, NamedTuple
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import huggingface_hub
from huggingface_hub import constants, errors
from huggingface_hub.utils import httpx, validate_repo_id

from experiments.config.errors import ConfigError, one_line, refuse
from experiments.config.model_files import adapter_base, are_renamed, check_parts, local_folder, named, weights_here

TIMEOUT_S = 3.0
TRIES = 5  # of a question that the Hub is too busy to answer
LONGEST_WAIT_S = 60.0  # between two of them, whatever the Hub asks for

OFFLINE = "load it once on a machine with a network, copy its HF_HOME and set HF_HUB_OFFLINE=1, or give a local folder"
OFFLINE_DATA = f"{OFFLINE} (data.path=FOLDER, written by save_to_disk)"
COPY = "give a local copy of its repository (data.path=FOLDER)"  # of a data set that is streamed
LOGIN = "run `hf auth login`"

_STREAMED = (
    "experiments.data.sources.multilingual.load",
)  # sources whose data `datasets` doesn't prepare in its cache

# Of this process's run, which loads one commit of a name, by name, revision and kind.
_commits: dict[tuple[str, str | None, str], str] = {}
_told: dict[str, str] = {}  # of these, what another process has asked for, by label
_unreachable_because: list[str] = []

logger = logging.getLogger(__name__)


class Source(NamedTuple):
    """What a config names on the Hub."""

    label: str  # of its commit in `run.json`: the name, and of a data set's second revision that, too
    what: str  # as the user typed it: "model.name=a/b"
    name: str  # OWNER/NAME
    revision: str | None  # branch, tag or commit; None: the main branch
    kind: str  # "model" or "dataset"
    instead: str  # what the user can do without the Hub


def check_sources(config: dict[str, Any], begun_with: dict[str, str]) -> dict[str, str]:
    """Make sure, before anything heavy is imported or downloaded, that the Hub gives what a config names.

    Returns the commit of each source, which will be loaded, by its label. Those that it returned for the run that is
    gone on with (`begun_with`) are taken again.

    Raises:
        ConfigError: At the first source that it doesn't give, and for a part that its model hasn't got.
    """
    found = commits(config, begun_with)
    check_parts(config.get("model", {}), _weights)
    return found


def commits(config: dict[str, Any], begun_with: dict[str, str] | None = None) -> dict[str, str]:
    """Return the commit of each source, which is asked for once; see `check_sources`."""
    found = {}
    for label, what, name, revision, kind, instead in sources(config):
        wanted = (begun_with or {}).get(label, revision)
        found[label] = _told.get(label) or commit(what, name, wanted, kind=kind, instead=instead)
        _commits[name, revision, kind] = found[label]
    return found


def take(found: dict[str, str]) -> None:
    """Take the commits that another process has asked for, the sweep's or the main one, for those of this run."""
    _told.update(found)
    if found and (reason := unreachable()):
        _go_offline(reason)


def sources(config: dict[str, Any]) -> Iterator[Source]:
    """Yield what a config names on the Hub, once for each revision."""
    for key, node in named(config):
        name, kind = node[key.rpartition(".")[2]], "dataset" if key.endswith(".path") else "model"
        if local_folder(name) is not None:
            continue
        instead = COPY if node["_target_"] in _STREAMED else OFFLINE_DATA if kind == "dataset" else OFFLINE
        splits = [node.get(split) for split in ("train", "eval")] if kind == "dataset" else []
        revisions = [split.get("revision") for split in splits if isinstance(split, dict)] or [node.get("revision")]
        for number, revision in enumerate(dict.fromkeys(revisions)):
            yield Source(f"{name}@{revision}" if number else name, f"{key}={name}", name, revision, kind, instead)


def ask(wanted: Iterable[Source], patience_s: float) -> dict[Source, str | ConfigError]:
    """Return the commits of sources, or why the Hub doesn't give them: of those that it answers for in that time."""
    answers: dict[Source, str | ConfigError] = {}

    def ask_one(source: Source) -> None:
        try:
            if unreachable() is None:
                answers[source] = commit(*source[1:4], kind=source.kind, instead=source.instead)
        except ConfigError as error:
            answers[source] = error

    asked = [] if constants.HF_HUB_OFFLINE else wanted
    threads = [Thread(target=ask_one, args=(source,), daemon=True) for source in asked]
    deadline = time.monotonic() + patience_s
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    return dict(answers)  # what comes later comes too late


def last_downloaded(source: Source) -> str | None:
    """Return the commit that a source stood at when it was last downloaded; None if it never was."""
    name, revision, kind = source.name, source.revision, source.kind
    if not _is_cached(name, revision, kind):
        return None
    return huggingface_hub.resolve_revision(name, revision=revision, repo_type=kind, local_files_only=True).resolved


def adapter_bases(config: dict[str, Any], found: dict[str, str]) -> dict[str, str]:
    """Return the commits of the models that adapters were loaded onto, by name: an adapter can't say which it needs.

    Args:
        config: The resolved config, whose models are loaded: what the cache holds of a base is what was taken.
        found: What `check_sources` returned.
    """
    bases = {}
    for name in [node["name"] for key, node in named(config) if key.endswith(".name")]:
        folder = local_folder(name)
        if folder is None:
            cached = huggingface_hub.try_to_load_from_cache(name, "adapter_config.json", revision=found.get(name))
            folder = Path(cached).parent if isinstance(cached, str) else None
        base = adapter_base(folder) if folder else None
        if base is not None and local_folder(base) is None:
            bases[base] = last_downloaded(Source(base, base, base, None, "model", OFFLINE))
    return {base: commit for base, commit in bases.items() if commit is not None}


def _weights(name: str, revision: str | None) -> list[str] | None:
    """Return the names of the weights that the Hub has of a model; None where it isn't asked or doesn't tell."""
    found = _commits.get((name, revision, "model"))
    if found is None or constants.HF_HUB_OFFLINE or weights_here(name, found) is not None:
        return None
    api = huggingface_hub.HfApi()
    try:
        config = json.loads(Path(api.hf_hub_download(name, "config.json", revision=found)).read_text())
        renamed = are_renamed(config)
        return None if renamed else [*api.get_safetensors_metadata(name, revision=found).weight_map]
    except (OSError, *_UNREACHED, errors.NotASafetensorsRepoError, errors.SafetensorsParsingError):
        return None  # what is wrong shows as it is loaded


def commit(what: str, name: str, revision: str | None = None, *, kind: str = "model", instead: str = OFFLINE) -> str:
    """Return the commit that a name on the Hub stands for, asked once; from the cache where the Hub can't be reached.

    `what` is asked for as the user typed it (`model.name=a/b`), at a branch, tag or commit (None: the main branch);
    `kind` is "model" or "dataset", and `instead` what the user can do without the Hub.

    Raises:
        ConfigError: If the Hub refuses, or can't be reached and the cache hasn't got it either.
    """
    if (known := _commits.get((name, revision, kind))) is not None:
        return known
    try:
        validate_repo_id(name)
    except errors.HFValidationError as error:
        raise ConfigError(f"{what}: no folder, and no name on the Hub, which is OWNER/NAME ({error})") from error
    if reason := unreachable():
        if not _is_cached(name, revision, kind):
            raise ConfigError(f"{what}: no such folder, and could not reach the Hub ({reason}): connect, or {instead}")
        logger.warning("The Hub can't be reached (%s): what was downloaded before is taken", reason)
        _go_offline(reason)
    if constants.HF_HUB_OFFLINE and not _is_cached(name, revision, kind):
        raise ConfigError(f"{what}: it is not in the cache, and {why_offline()}, or {instead}")
    with one_line_errors(what, name, instead, kind):
        found = _commits[name, revision, kind] = _patiently(lambda: _ask(name, revision, kind))
    return found


def why_offline() -> str:
    """Return why the Hub isn't asked, and what to do about it."""
    if _unreachable_because:
        return f"the Hub can't be reached ({_unreachable_because[0]}): connect"
    return "HF_HUB_OFFLINE is set: unset it"


def require_hub(what: str, instead: str = OFFLINE) -> None:
    """Raise a ConfigError at once if something needs the Hub, and no connection comes about within three seconds."""
    refuse(reason := unreachable(), f"{what}: could not reach the Hub ({reason}): connect, or {instead}")


def unreachable() -> str | None:
    """Return why the Hub can't be reached, or None if it can.

    Asks nothing in offline mode (HF_HUB_OFFLINE=1: the libraries answer from their cache at once) and behind a proxy.
    """
    url = urlsplit(constants.ENDPOINT)
    host, scheme = url.hostname or constants.ENDPOINT, url.scheme or "https"
    proxies = getproxies()
    if constants.HF_HUB_OFFLINE or ((scheme in proxies or "all" in proxies) and not proxy_bypass(host)):
        return None
    reason = _connection_failure(host, url.port or (80 if scheme == "http" else 443))
    return f"{constants.ENDPOINT}: {reason}" if reason else None


@contextmanager
def one_line_errors(what: str, name: str, instead: str = OFFLINE, kind: str = "model") -> Iterator[None]:
    """Raise a ConfigError that says in one line why the Hub refused, and what to do."""
    try:
        yield
    except Exception as error:
        if (reason := refusal(error, name, instead, kind)) is None:
            raise
        raise ConfigError(f"{what}: {reason}") from error


def refusal(error: BaseException, name: str, instead: str = OFFLINE, kind: str = "model") -> str | None:
    """Return what the Hub's answer behind an error means, and what to do; None if it isn't the Hub's."""
    causes = [each for each in _causes(error) if not isinstance(each, errors.RemoteEntryNotFoundError)]
    for each in causes:
        if isinstance(each, errors.HfHubHTTPError):
            return _in_words(each, f"{constants.ENDPOINT}/{'datasets/' * (kind == 'dataset')}{name}", instead)
    if not any(isinstance(each, _UNREACHED) for each in causes):
        return None
    if constants.HF_HUB_OFFLINE:
        return f"it is not whole in the cache, and {why_offline()}, or {instead}"
    return f"the connection to the Hub was lost ({one_line(str(_causes(error)[-1]), 160)}): type the same line again"


def _in_words(error: errors.HfHubHTTPError, page: str, instead: str) -> str:
    status = error.response.status_code
    match error:
        case errors.GatedRepoError():
            return f"the Hub gives it to those alone who were granted access: ask at {page}, then {LOGIN}"
        case errors.RepositoryNotFoundError():
            return f"the Hub has no such repository, or shows it to others alone: check the name, or {LOGIN}"
        case errors.RevisionNotFoundError():
            return f"the Hub has no such revision of it: see {page}"
    statuses = {
        401: f"the Hub doesn't accept the token (401): {LOGIN}",
        403: f"the token may not do that (403): see what it permits, or {LOGIN} with another",
        429: f"the Hub is asked too often (429): try again in a few minutes, or {LOGIN}, which allows more",
    }
    return statuses.get(status, f"the Hub answers {status}: try again later, or {instead}")


_UNREACHED = (
    *(errors.RevisionResolutionError, errors.OfflineModeIsEnabled, errors.LocalEntryNotFoundError),
    httpx.TransportError,
)


def _ask(name: str, revision: str | None, kind: str) -> str:
    """Return the commit of a revision that is there and may be read."""
    if not (offline := constants.HF_HUB_OFFLINE):
        api = huggingface_hub.HfApi()
        if api.repo_info(name, revision=revision, repo_type=kind).gated:
            api.auth_check(name, repo_type=kind)  # what it is, everybody may know
    found = huggingface_hub.resolve_revision(name, revision=revision, repo_type=kind, local_files_only=offline)
    return found.resolved


def _patiently(ask: Callable[[], str]) -> str:
    """Ask again after a while, as long as the Hub says that it is too busy."""
    for number in range(1, TRIES):
        try:
            return ask()
        except (errors.HfHubHTTPError, errors.RevisionResolutionError) as error:
            answers = [each.response for each in _causes(error) if isinstance(each, errors.HfHubHTTPError)]
            if not answers or (status := answers[0].status_code) not in (408, 429, 500, 502, 503, 504):
                raise
            asked = answers[0].headers.get("Retry-After", "")
            wait_s = float(asked) if asked.isdigit() else 2.0 ** (number - 1)
            if wait_s > LONGEST_WAIT_S:
                raise
            logger.warning("The Hub is too busy (%s): asking again in %.0f s", status, wait_s)
            time.sleep(wait_s)
    return ask()


def _is_cached(name: str, revision: str | None, kind: str) -> bool:
    """Return whether something of the commit has been downloaded before."""
    try:
        found = huggingface_hub.resolve_revision(name, revision=revision, repo_type=kind, local_files_only=True)
    except errors.RevisionResolutionError:
        return False
    repository = Path(constants.HF_HUB_CACHE) / f"{kind}s--{name.replace('/', '--')}"
    prepared = Path(os.environ.get("HF_DATASETS_CACHE", f"{constants.HF_HOME}/datasets"))
    is_prepared = kind == "dataset" and any(prepared.glob(f"*/*/*/{found.resolved}"))
    return is_prepared or (repository / "snapshots" / found.resolved).is_dir()


def _go_offline(reason: str) -> None:
    """Let the libraries answer from their caches, as HF_HUB_OFFLINE=1 would have from the start."""
    _unreachable_because.append(reason)
    constants.HF_HUB_OFFLINE = True
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # it would say so again for each file
    if (config := sys.modules.get("datasets.config")) is not None:
        config.HF_HUB_OFFLINE = config.HF_DATASETS_OFFLINE = True  # type: ignore[attr-defined]


def _causes(error: BaseException | None) -> list[BaseException]:
    """Return an error and what it came from, the deepest last."""
    found: list[BaseException] = []
    while error is not None and error not in found:
        found.append(error)
        error = error.__cause__ or error.__context__
    return found


@functools.cache  # of several sources the first one waits for all
def _connection_failure(host: str, port: int) -> str | None:
    """Return why no TCP connection came about within the timeout, or None if one did."""
    failures = [f"no answer within {TIMEOUT_S:.0f} s"]

    def connect() -> None:
        try:
            socket.create_connection((host, port), timeout=TIMEOUT_S).close()
            failures.clear()
        except OSError as error:
            failures[0] = error.strerror or str(error)

    # In a thread, since a name look-up has no timeout of its own.
    thread = Thread(target=connect, daemon=True)
    thread.start()
    thread.join(TIMEOUT_S)
    return failures[0] if failures else None
