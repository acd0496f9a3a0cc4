"""The command line. It talks HTTP to a hutch server and holds no rule of its own."""


def main() -> None:
    """The program `hutch`."""
    # Imported here, so that importing this package for its parts costs nothing.
    from hutch.cli.app import run

    raise SystemExit(run())
