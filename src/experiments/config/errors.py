"""The one error that means: the user can mend this."""


class ConfigError(ValueError):
    """A mistake in what was typed: one line that says what is wrong and what to type instead (exit code 2)."""


def refuse(is_wrong: object, message: str) -> None:
    """Raise a ConfigError with the message if something is wrong."""
    if is_wrong:
        raise ConfigError(message)


def one_line(text: str, limit: int = 600) -> str:
    """Return a text with its line breaks as spaces, cut to `limit` characters."""
    text = " ".join(text.split())
    return text if len(text) <= limit else f"{text[: limit - 3]}..."
