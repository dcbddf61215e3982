"""Numbers of bytes as they are typed: 6GiB."""

from __future__ import annotations

from experiments.config.errors import ConfigError


def parse_bytes(size: str | int | None) -> int | None:
    """Return a number of bytes, written as such or as text like "6GiB"; None is None.

    Raises:
        ConfigError: If it is neither.
    """
    if size is None:
        return None
    from pydantic import ByteSize, TypeAdapter, ValidationError  # not needed where no size is typed

    try:
        if (number := TypeAdapter(ByteSize).validate_python(str(size))) > 0:
            return int(number)
    except ValidationError:
        pass
    raise ConfigError(f"memory_limit={size}: expected bytes, such as 6GiB or 500MiB")
