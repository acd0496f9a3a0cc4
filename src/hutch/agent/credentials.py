"""The token with which a node's agent signs in: one line in a file that root alone can read."""

import stat
from pathlib import Path

from hutch.errors import ConfigurationError


def read_token(file: Path) -> str:
    """Raises ConfigurationError when there is none, or when others could have read it."""
    hint = f"`hutch node token NODE > {file}` makes one; then `chmod 600 {file}`."
    try:
        mode = file.stat().st_mode
        token = file.read_text(encoding="ascii").strip()
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"{file} cannot be read: {error}.", hint=hint) from None
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise ConfigurationError(
            f"{file} can be read by others, and with it the node's token.",
            hint=f"Run: chmod 600 {file}",
        )
    if not token or len(token.split()) != 1:
        raise ConfigurationError(f"There is no token in {file}.", hint=hint)
    return token
