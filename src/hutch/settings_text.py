"""hutch's settings as the text of the file that they are read from."""

import json

from hutch.settings import Settings


def as_toml(settings: Settings | None = None) -> str:
    """Every key as a commented TOML file; keys that differ from the default are not commented."""
    lines = [
        "# hutch's settings. A line that begins with '#' shows a default.",
        "# Each key can also be set by the environment: HUTCH_ and the key in capitals.",
        "",
    ]
    defaults = Settings()
    for name, field in Settings.model_fields.items():
        value = getattr(settings or defaults, name)
        shown = f"{name} = {_toml(value)}"
        lines += [
            f"# {field.description}",
            shown if value != getattr(defaults, name) else f"#{shown}",
            "",
        ]
    return "\n".join(lines)


def _toml(value: object) -> str:
    if isinstance(value, list):
        items: list[object] = list(value)  # pyright: ignore[reportUnknownArgumentType]
        return "[" + ", ".join(_toml(item) for item in items) + "]"
    if isinstance(value, (int, float)):
        return repr(value)
    # TOML's basic strings are JSON's, but for DEL.
    return json.dumps(str(value), ensure_ascii=False).replace("\x7f", "\\u007f")
