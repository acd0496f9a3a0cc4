"""Packages of npm, as far as an image wants them: fetched, checked and unpacked, never run."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from base64 import b64encode
from pathlib import Path

from hutch.setup.commands import CommandError, run


def unpack(name: str, version: str, integrity: str, folder: Path) -> None:
    """Lays one version of a package into `folder`, from where this machine's npm gets packages.

    `integrity` is its hash as npm writes it, `sha512-…`.

    Raises:
        CommandError: npm is not here, has no such package, or gave another one.
    """
    argv = ["npm", "pack", "--silent", f"{name}@{version}"]
    with tempfile.TemporaryDirectory() as fetched:
        run([*argv, "--pack-destination", fetched], timeout=300)
        (archive,) = Path(fetched).glob("*.tgz")
        digest = b64encode(hashlib.sha512(archive.read_bytes()).digest()).decode()
        if f"sha512-{digest}" != integrity:
            raise CommandError(argv, f"gave another package than the recipe names: sha512-{digest}")
        run(["tar", "-C", fetched, "--no-same-owner", "-xzf", str(archive)])
        folder.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(Path(fetched) / "package", folder)
