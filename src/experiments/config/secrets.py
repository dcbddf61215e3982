"""Tokens and passwords, known by their key or their form: a run's records would keep what stands in its config."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from experiments.config.errors import ConfigError
from experiments.config.targets import leaves

_FORMS = re.compile(
    r"(?<![A-Za-z0-9])(hf_[A-Za-z0-9]{20,}|sk-(?=[\w-]*\d)[\w-]{20,}|gh[pousr]_\w{20,}|github_pat_\w{20,})"
    r"|[a-zA-Z][\w+.-]*://[^\s/:@]*:[^\s/@]+@"  # a URL with a password
    r"|-----BEGIN [A-Z ]*PRIVATE KEY"
)
_PASSWORD = re.compile(r"password|passwd|secret|api_?key|credential", re.IGNORECASE)
_TOKENIZERS = re.compile(r"true|false|bos|eos|unk|sep|pad|cls|mask|image|video|audio|\w+_(start|end)")  # own tokens
_SETTING = re.compile(r"(\w+)[\"']?\s*[=:]\s*(?![\"']?(?:null|true|false|\d+)?[\"']?(?:[\s,}\]]|$))")
_FROM_ENVIRONMENT = re.compile(r"\$\{oc\.env:\s*(\w+)")


class SecretError(ConfigError):
    """A secret that was typed, or stands in a config; the message doesn't repeat it."""

    def __init__(self, where: str) -> None:
        super().__init__(
            f"{where} is a token or a password, which the run's records would keep; leave it out and "
            "run `hf auth login`, or set it in the environment (HF_TOKEN)"
        )


def check_typed(words: Sequence[str]) -> None:
    """Refuse a secret on the command line, before any of it is repeated.

    Raises:
        SecretError: It names the key.
    """
    for word in words:
        key = word.partition("=")[0].lstrip("+~") if "=" in word else "a word of this line"
        names = [*_SETTING.findall(word), *_FROM_ENVIRONMENT.findall(word)]
        if _FORMS.search(word) or any(map(_is_secret, names)):
            raise SecretError("a word of this line" if _FORMS.search(key) else key)


def check(config: dict[str, Any]) -> None:
    """Refuse a config, whole or in part resolved, with a secret in it.

    Raises:
        SecretError: It names the key.
    """
    for key, value in leaves(dict(sorted(config.items(), key=lambda item: item[0] == "hydra")), ""):  # as typed first
        if value is None or isinstance(value, bool) or value in ("", "???"):
            continue
        name, text = key.rpartition(".")[2], str(value)
        by_key = _is_secret(name) and (isinstance(value, str) or _PASSWORD.search(name))
        if by_key or any(map(_is_secret, _FROM_ENVIRONMENT.findall(text))) or _FORMS.search(text):
            raise SecretError("a key of the config" if _FORMS.search(key) else key)


def _is_secret(name: str) -> bool:
    """Return whether a key, or a variable of the environment, is named as one that holds a secret."""
    of, is_token, rest = name.lower().rpartition("token")
    if is_token and not rest:
        return not _TOKENIZERS.fullmatch(of.rstrip("_"))
    return bool(_PASSWORD.search(name)) and not name.lower().endswith(("_env", "_file", "_path"))
