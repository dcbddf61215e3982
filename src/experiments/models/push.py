"""Put a finished model on the Hub, and make sure before the work that this can be done."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Any

from experiments.config.errors import ConfigError
from experiments.runs.files import save_json
from experiments.runs.process import is_main_process
from experiments.runs.run import read_record

logger = logging.getLogger(__name__)


class PushError(RuntimeError):
    """The finished model could not be pushed."""


def check(trainer: dict[str, Any], name: str) -> None:
    """Make sure, before the work, that a run's finished model could be pushed as its `trainer` node asks.

    Raises:
        ConfigError: If the Hub can't be reached, nobody is logged in, or who is may not write there.
    """
    if not trainer["push_to_hub"]:
        return
    from huggingface_hub import HfApi, constants, errors
    from huggingface_hub.utils import validate_repo_id

    from experiments.config.hub import LOGIN, one_line_errors, require_hub

    key = "trainer.push_to_hub=true"
    require_hub("pushing the model", instead="type trainer.push_to_hub=false")
    if constants.HF_HUB_OFFLINE:
        raise ConfigError(f"{key}: HF_HUB_OFFLINE is set; unset it, or type trainer.push_to_hub=false")
    repo_id = repository(trainer, name)
    try:
        validate_repo_id(repo_id)
    except errors.HFValidationError as error:
        raise ConfigError(f"trainer.hub_model_id={repo_id}: {error}") from error
    api = HfApi()
    try:
        with one_line_errors(key, repo_id):
            user = api.whoami()
    except errors.LocalTokenNotFoundError as error:
        raise ConfigError(f"{key}: nobody is logged in; {LOGIN} first") from error
    owner, _, rest = repo_id.rpartition("/")
    owners = [user["name"], *(each["name"] for each in user.get("orgs", []))]
    if owner and owner not in owners:
        raise ConfigError(
            f"trainer.hub_model_id={repo_id}: you are {owners[0]}; type one of {', '.join(owners)}/{rest}"
        )
    if user.get("auth", {}).get("accessToken", {}).get("role") == "read":
        raise ConfigError(f"{key}: the token can only read; {LOGIN} with one that can write")
    whole = repo_id if owner else f"{owners[0]}/{rest}"
    with one_line_errors(key, whole):
        exists = api.repo_exists(whole)
        if not exists:  # made now: what is refused at the end would have cost the whole training
            api.create_repo(whole, private=trainer.get("hub_private_repo"), exist_ok=True)
    logger.info("To be pushed at the end: %s%s", whole, " (it exists: a new commit)" if exists else " (made)")


def push(output_dir: Path, trainer: dict[str, Any], name: str) -> None:
    """Push the model of a finished run as a new commit, and record where it is.

    A repository that isn't there yet is made. Under torchrun the main process does it.

    Raises:
        PushError: If the Hub refuses after all; the model is on disk, and the same line of a sweep tries it again.
    """
    if not is_main_process():
        return
    from huggingface_hub import HfApi

    from experiments.config.hub import refusal

    api, repo_id, revision = HfApi(), repository(trainer, name), trainer.get("hub_revision")
    try:
        whole = api.create_repo(repo_id, private=trainer.get("hub_private_repo"), exist_ok=True).repo_id
        if revision is not None:
            api.create_branch(whole, branch=revision, exist_ok=True)
        message = "Add a trained model"
        commit = api.upload_folder(
            repo_id=whole, folder_path=output_dir / "final", revision=revision, commit_message=message
        )
    except Exception as error:
        reason = refusal(error, repo_id) or f"{type(error).__name__}: {error}"
        raise PushError(
            f"the model is finished, but not pushed: {reason}; then type hf upload {repo_id} {output_dir / 'final'}"
        ) from error
    save_json(output_dir / "run.json", (read_record(output_dir) or {}) | {"pushed": commit.commit_url})
    logger.info("Pushed:    %s", commit.commit_url)


def repository(trainer: dict[str, Any], name: str) -> str:
    """Return the Hub name to push to: the one given, or one made of the run's."""
    return trainer["hub_model_id"] or re.sub(r"[^\w.]+", "-", name).strip("-.")[:96].rstrip("-.")
