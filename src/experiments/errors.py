"""The one error that means: the user can mend this."""


class ConfigError(ValueError):
    """A mistake in what was typed: one line that says what is wrong and what to type instead (exit code 2)."""
