"""Numbers of bytes as they are typed: 6GiB."""

from __future__ import annotations

import re

from experiments.config.errors import ConfigError

_UNITS = {"": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "KB": 10**3, "MB": 10**6, "GB": 10**9}


def parse_bytes(size: str | int | None) -> int | None:
    """Return a number of bytes, written as such or as text like "6GiB"; None is None.

    Raises:
        ConfigError: If it is neither.
    """
    if size is None:
        return None
    match = re.fullmatch(r"([\d.]+)\s*([A-Za-z]*)", str(size).strip())
    units = {unit.lower(): factor for unit, factor in _UNITS.items()}
    try:
        if match and (number := int(float(match[1]) * units[match[2].lower()])) > 0:
            return number
    except (KeyError, ValueError):
        pass
    raise ConfigError(f"memory_limit={size}: expected bytes, such as 6GiB or 500MiB")
