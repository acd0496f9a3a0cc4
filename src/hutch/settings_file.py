"""The file that settings are read from."""

import tomllib
from pathlib import Path
from typing import Any

from hutch.errors import ConfigurationError


def read(file: Path) -> dict[str, Any]:
    """What it says, not looked at yet. Raises ConfigurationError when it is no TOML."""
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(
            f"{file} is not valid TOML: {error}.", hint="Mend the line, then start again."
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(
            f"{file} cannot be read: {error}.", hint="Check that it exists and its rights."
        ) from None
