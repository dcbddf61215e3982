"""Whether the Hugging Face Hub can be reached, asked before a library spends a minute on retries."""

from __future__ import annotations

import socket
from threading import Thread
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from huggingface_hub import constants

from experiments.config.errors import ConfigError

TIMEOUT_S = 3.0

OFFLINE = "load it once on a machine with a network, copy its HF_HOME and set HF_HUB_OFFLINE=1, or give a local folder"


def require_hub(what: str, instead: str = OFFLINE) -> None:
    """Raise at once if something needs the Hub and the Hub cannot be reached.

    Asks nothing in offline mode (HF_HUB_OFFLINE=1: the libraries answer from their cache at once) and behind a proxy.

    Args:
        what: What is asked for, named as the user typed it: "model a/b".
        instead: What the user can do without the Hub.

    Raises:
        ConfigError: No connection to the Hub (HF_ENDPOINT) within three seconds.
    """
    url = urlsplit(constants.ENDPOINT)
    host, scheme = url.hostname or constants.ENDPOINT, url.scheme or "https"
    proxies = getproxies()
    if constants.HF_HUB_OFFLINE or ((scheme in proxies or "all" in proxies) and not proxy_bypass(host)):
        return
    if reason := _connection_failure(host, url.port or (80 if scheme == "http" else 443)):
        raise ConfigError(f"{what}: could not reach the Hub ({constants.ENDPOINT}: {reason}): connect, or {instead}")


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
