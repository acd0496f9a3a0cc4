"""The base image: built from the machine's own package mirror after a recipe, kept as a tar file.

The tar's name carries a hash of the recipe and of the sources, so that it is built once only.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import tempfile
import time
import tomllib
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any, cast

from hutch.setup import apt, npm
from hutch.setup.commands import CommandError, run, run_showing
from hutch.setup.incus_api import IncusApi, IncusApiError, Json

#: Changed when the building itself changes and images made before should not be used again.
_BUILDER = 2
_XATTRS = ("--numeric-owner", "--xattrs", "--xattrs-include=*")
#: Where mmdebstrap leaves the options it was given; where the image has those it may keep.
_BUILDER_OPTIONS = "etc/apt/apt.conf.d/99mmdebstrap"
_PROXY = "etc/apt/apt.conf.d/90proxy"
_SITE_CERTIFICATES = Path("/usr/local/share/ca-certificates")

Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Recipe:
    """What is in an image, read from `recipes/NAME.toml`; the comments there explain each key."""

    name: str
    description: str
    packages: list[str]
    exclude_paths: list[str]
    include_paths: list[str]
    mask: list[str]
    disable: list[str]
    enable: list[str]
    unordered: list[str]
    remove: list[str]
    empty: list[str]
    links: dict[str, str]
    files: dict[str, str]
    npm: dict[str, dict[str, str]] = field(default_factory=dict[str, dict[str, str]])


def read_recipe(name: str = "base") -> Recipe:
    return Recipe(**_keys(name))


def _keys(name: str) -> dict[str, Any]:
    """A recipe's keys, after those of the recipe that it goes out from."""
    folder = resources.files("hutch.setup") / "recipes"
    keys = tomllib.loads((folder / f"{name}.toml").read_text())
    copies: dict[str, str] = keys.pop("copies", {})
    files: dict[str, str] = keys.setdefault("files", {})
    files.update({path: (folder / own).read_text() for path, own in copies.items()})
    base = keys.pop("base", None)
    if base is None:
        return keys
    whole = _keys(base)
    for key, value in keys.items():
        match value:
            case list():
                whole[key] = [*whole[key], *cast("list[str]", value)]
            case dict():
                whole[key] = {**whole.get(key, {}), **cast("dict[str, Any]", value)}
            case _:
                whole[key] = value
    return whole


def image_key(recipe: Recipe, release: apt.Release, sources: list[apt.Source]) -> str:
    """A short hash over everything that decides what is in the image."""
    parts = [
        _BUILDER,
        release.codename,
        [source.as_deb822() for source in sources],
        # Without what is empty, so that a new key makes no new image of those that lack it.
        {name: value for name in Recipe.__slots__ if (value := getattr(recipe, name))},
        [path.read_text() for path in _site_certificates()],
    ]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:12]


def _site_certificates() -> list[Path]:
    """Certificate authorities the host trusts beyond its distribution's: instances need them too,
    where a proxy or a mirror of the institute is signed by one."""
    if not _SITE_CERTIFICATES.is_dir():
        return []
    return sorted(_SITE_CERTIFICATES.rglob("*.crt"))


def tar_path(cache: Path, recipe: Recipe) -> Path:
    """Where the ready image lies, or will."""
    release = apt.read_release()
    sources = apt.own_sources(apt.read_sources(), release)
    return cache / f"{recipe.name}-{release.codename}-{image_key(recipe, release, sources)}.tar"


def ensure_built(cache: Path, progress: Progress, name: str = "base") -> Path:
    """The image's tar file, built now if it is not in `cache` (some 40 s and 700 MB at the peak).

    Two callers at once build it once: the second waits for the first.

    Raises:
        CommandError: the build failed.
    """
    recipe = read_recipe(name)
    target = tar_path(cache, recipe)
    if target.exists():
        return target
    cache.mkdir(parents=True, exist_ok=True)
    with _locked(cache / f"{recipe.name}.lock"):
        if not target.exists():
            _build(recipe, target, progress)
            _forget_older(cache, recipe, target)
    return target


@contextmanager
def _locked(path: Path) -> Generator[None]:
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _forget_older(cache: Path, recipe: Recipe, newest: Path) -> None:
    """Removes images of older recipes; a day's grace for who still reads one."""
    for old in cache.glob(f"{recipe.name}-*.tar"):
        if old != newest and time.time() - old.stat().st_mtime > 86_400:
            old.unlink(missing_ok=True)


def _build(recipe: Recipe, target: Path, progress: Progress) -> None:
    release = apt.read_release()
    sources = apt.own_sources(apt.read_sources(), release)
    if not sources:
        raise CommandError(
            ["apt-get", "update"],
            f"knows no mirror of {release.pretty_name}: no entry of the suite"
            f" {release.codename} with the component main was found in /etc/apt",
        )
    with tempfile.TemporaryDirectory(prefix="build-", dir=target.parent) as folder:
        work = Path(folder)
        # mmdebstrap's unprivileged apt must be able to pass through.
        work.chmod(0o755)
        rootfs = work / "rootfs"
        # First, as it is soon done, or soon known not to work.
        for name, wanted in recipe.npm.items():
            progress(f"fetching {name}")
            npm.unpack(name, wanted["version"], wanted["integrity"], work / "npm" / name)
        _bootstrap(recipe, release, sources, work, progress)
        if forget_credentials(rootfs, apt.proxy_options()):
            progress("left the passwords of mirrors and proxies out: instances go without them")
        progress("configuring")
        for name, wanted in recipe.npm.items():
            shutil.copytree(work / "npm" / name, _inside(rootfs, wanted["folder"]))
        configure(recipe, rootfs)
        (work / "metadata.yaml").write_text(_metadata(recipe, release))
        progress("packing")
        part = work / "image.tar"
        run(
            ["tar", "-C", folder, *_XATTRS, "-cf", str(part), "metadata.yaml", "rootfs"],
            timeout=600,
        )
        part.rename(target)


def _bootstrap(
    recipe: Recipe, release: apt.Release, sources: list[apt.Source], work: Path, progress: Progress
) -> None:
    """Unpacks the distribution into work/rootfs with mmdebstrap, from the machine's mirrors."""
    listing = work / "image.sources"
    listing.write_text("\n".join(source.as_deb822() for source in sources))
    options = [f"--dpkgopt=path-exclude={path}" for path in recipe.exclude_paths]
    options += [f"--dpkgopt=path-include={path}" for path in recipe.include_paths]
    options += [f"--aptopt={option}" for option in apt.proxy_options()]
    argv = ["mmdebstrap", "--variant=minbase", "--mode=root", "--format=directory"]
    argv += ["--skip=output/dev", f"--include={','.join(recipe.packages)}", *options]
    argv += [release.codename, str(work / "rootfs"), str(listing)]
    run_showing(argv, lambda line: progress(line.removeprefix("I: ")), env={"TMPDIR": str(work)})


def forget_credentials(rootfs: Path, proxies: list[str]) -> bool:
    """Keeps the host's passwords for mirrors and proxies out of the image, which everybody reads;
    whether there were any. The addresses stay, so that apt works where it works without."""
    (rootfs / _BUILDER_OPTIONS).unlink(missing_ok=True)
    given = "".join(f"{option}\n" for option in proxies)
    if given:
        (rootfs / _PROXY).write_text(apt.without_credentials(given))
    found = given != apt.without_credentials(given)
    folder = rootfs / "etc/apt"
    for path in (folder / "sources.list", *sorted((folder / "sources.list.d").glob("*"))):
        if path.is_file():
            text = path.read_text()
            if text != apt.without_credentials(text):
                path.write_text(apt.without_credentials(text))
                found = True
    return found


def configure(recipe: Recipe, rootfs: Path) -> None:
    """Makes the unpacked distribution into the image the recipe describes."""
    units = rootfs / "etc/systemd/system"
    for path, text in recipe.files.items():
        target = _inside(rootfs, path)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text.lstrip("\n"))
    for pattern in recipe.remove:
        for path in rootfs.glob(pattern.lstrip("/")):
            path.unlink()
    for path in recipe.empty:
        _inside(rootfs, path).write_text("")
    for path, leads_to in recipe.links.items():
        link = _inside(rootfs, path)
        link.unlink(missing_ok=True)
        link.symlink_to(leads_to)
    for unit in recipe.unordered:
        (units / unit).write_text(without_order(_vendor_unit(rootfs, unit).read_text()))
    _trust_site_certificates(rootfs)
    run(["chroot", str(rootfs), "systemctl", "disable", *recipe.disable])
    run(["chroot", str(rootfs), "systemctl", "enable", *recipe.enable])
    for unit in recipe.mask:
        (units / unit).unlink(missing_ok=True)
        (units / unit).symlink_to("/dev/null")


def _inside(rootfs: Path, path: str) -> Path:
    return rootfs / path.lstrip("/")


def _vendor_unit(rootfs: Path, unit: str) -> Path:
    return rootfs / "usr/lib/systemd/system" / unit


def without_order(unit: str) -> str:
    """A unit's text with nothing but the shutdown waiting for it. A drop-in cannot do this:
    systemd lets ordering be added there, never taken away."""
    lines = [
        "Before=shutdown.target" if line.startswith("Before=") else line
        for line in unit.splitlines()
    ]
    return "\n".join(lines) + "\n"


def _trust_site_certificates(rootfs: Path) -> None:
    certificates = _site_certificates()
    if not certificates:
        return
    folder = _inside(rootfs, str(_SITE_CERTIFICATES))
    folder.mkdir(parents=True, exist_ok=True)
    for path in certificates:
        shutil.copyfile(path, folder / path.name)
    run(["chroot", str(rootfs), "update-ca-certificates"])


def _metadata(recipe: Recipe, release: apt.Release) -> str:
    """The image's metadata.yaml. JSON is YAML, and quotes what needs it."""
    description = recipe.description.format(pretty_name=release.pretty_name)
    fields = {
        "architecture": os.uname().machine,
        "creation_date": int(time.time()),
        "properties": {
            "os": release.id,
            "release": release.codename,
            "description": description,
        },
    }
    return json.dumps(fields)


def ensure_imported(api: IncusApi, tar: Path, alias: str, description: str = "") -> bool:
    """Makes the tar file the image behind `alias` in the client's project; whether it was not.

    Raises:
        IncusApiError: Incus refused it.
    """
    target = fingerprint(tar)
    known = api.find(f"/images/aliases/{alias}")
    if known is not None and known["target"] == target:
        return False
    if api.find(f"/images/{target}") is None:
        _upload(api, tar)
    body: Json = {"name": alias, "target": target, "description": description}
    if known is None:
        api.call("POST", "/images/aliases", body)
    else:
        api.call("PUT", f"/images/aliases/{alias}", body)
        _forget_image(api, str(known["target"]))
    return True


def _upload(api: IncusApi, tar: Path) -> None:
    headers = {
        "Content-Type": "application/octet-stream",
        "Content-Length": str(tar.stat().st_size),
        "X-Incus-filename": tar.name,
        "X-LXD-filename": tar.name,
    }
    api.call("POST", "/images", content=_chunks(tar), headers=headers)


def _forget_image(api: IncusApi, fingerprint: str) -> None:
    """Removes the image an alias led to before, unless someone gave it another alias."""
    image = api.find(f"/images/{fingerprint}")
    if image is not None and not cast("list[Any]", image["aliases"]):
        try:
            api.call("DELETE", f"/images/{fingerprint}")
        except IncusApiError:
            return


def _chunks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while chunk := file.read(1024 * 1024):
            yield chunk


def fingerprint(path: Path) -> str:
    """The tar's hash, which is also the fingerprint Incus gives the image. Kept beside the tar,
    since hashing some 300 MB is most of what a second run would do."""
    note = path.with_suffix(".sha256")
    if note.exists() and note.stat().st_mtime >= path.stat().st_mtime:
        return note.read_text().strip()
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    note.write_text(digest)
    return digest


def warm_up(api: IncusApi, alias: str) -> None:
    """Makes Incus unpack the image into the pool now, instead of at the first creation: that is
    some seconds, once. An instance is made from it, never started, and removed."""
    name = f"warm-up-{os.getpid()}"
    source = {"type": "image", "alias": alias}
    api.call("POST", "/instances", {"name": name, "source": source, "type": "container"})
    api.call("DELETE", f"/instances/{name}")
