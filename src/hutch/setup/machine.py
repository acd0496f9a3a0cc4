"""The steps that make the machine ready for hutch: packages, the system user, and Incus."""

from __future__ import annotations

import grp
import os
import pwd
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

from hutch import supervisor
from hutch.domain.nodes import EngineKind
from hutch.domain.sizes import GiB
from hutch.setup import apt, firewall, host, image, incusd, kernel, prepare
from hutch.setup.commands import run
from hutch.setup.incus_api import IncusApi
from hutch.setup.options import Options
from hutch.setup.prepare import PoolDriver
from hutch.setup.site import Daemon, Site, load_site, save_site
from hutch.setup.steps import Progress, Step, StepFailedError

_ALWAYS = ("iproute2", "mmdebstrap", "nftables", "openssh-client")
#: What Incus's own package only recommends, and hutch cannot do without.
_WITH_INCUS = (
    "acl", "attr", "btrfs-progs", "dnsmasq-base", "lxcfs", "rsync", "squashfs-tools", "uidmap",
    "xz-utils",
)  # fmt: skip
_BACKPORTS_FILE = Path("/etc/apt/sources.list.d/hutch-backports.sources")


def decide_site(options: Options) -> Site:
    """Who runs the engine on this machine, now and at every later run.

    What an earlier run decided stands: an Incus that hutch itself started must not be taken for
    somebody else's.
    """
    known = _known_site(options)
    if known is not None:
        wish = options.simulated_gpus
        return known if wish is None else replace(known, simulated_gpus=wish)
    is_root = os.geteuid() == 0
    own_socket = options.incus_folder / "unix.socket"
    daemon, socket = Daemon.NONE, own_socket
    if options.engine is EngineKind.INCUS:
        found = next(_answering_sockets(own_socket), None)
        own = Daemon.UNITS if host.has_systemd() else Daemon.SUPERVISED
        daemon, socket = (Daemon.FOREIGN, found) if found else (own, own_socket)
    return Site(
        data=options.data,
        engine=options.engine,
        daemon=daemon,
        socket=socket,
        incus_folder=options.incus_folder,
        names=options.names,
        user=options.user if is_root else "",
        groups=(),
        units=is_root and host.has_systemd(),
        simulated_gpus=options.simulated_gpus or 0,
    )


def _known_site(options: Options) -> Site | None:
    if not (options.data / "site.json").exists():
        return None
    site = load_site(options.data)
    if site.engine is not options.engine:
        raise StepFailedError(
            f"{options.data} holds a hutch with the engine {site.engine.value}",
            f"Run ./quickstart --engine {site.engine.value}, or name another folder: --data DIR",
        )
    return site


def _answering_sockets(own: Path) -> Iterator[Path]:
    """Sockets behind which an Incus or LXD answers, the place of a daemon of our own first."""
    standard = incusd.SOCKETS if own.parent == Path("/var/lib/incus") else ()
    for path in (own, *standard):
        if path.exists():
            with IncusApi(path) as api:
                if api.answers():
                    yield path


def steps(options: Options, site: Site) -> list[Step]:
    """Everything up to an Incus that is ready for the first instance."""
    found: list[Step] = []
    if os.geteuid() == 0:
        if site.engine is EngineKind.INCUS:
            found.append(packages(with_incus=site.daemon is not Daemon.FOREIGN))
            found.append(_kernel())
        found.append(_account(site))
    found.append(_folders(site))
    if site.engine is EngineKind.INCUS:
        found += _incus(options, site)
    return found


# ---- packages -------------------------------------------------------------------------------


def packages(*, with_incus: bool, extra: Sequence[str] = ()) -> Step:
    """The distribution's packages that hutch works with, and `extra` ones."""
    wanted = [*_ALWAYS, *extra]
    if with_incus:
        wanted += _WITH_INCUS
        if host.supports_file_system("zfs"):
            wanted.append("zfsutils-linux")

    def do(progress: Progress) -> str:
        apt.update(progress)
        absent = apt.missing(wanted)
        if with_incus and not _has_incus():
            absent += _incus_packages(progress)
        apt.install(absent, progress)
        return f"installed {', '.join(absent)}"

    return Step(
        "Packages of the operating system",
        lambda: not apt.missing(wanted) and (_has_incus() or not with_incus),
        do,
        advice="Check the network and the mirrors in /etc/apt, then run the same command again.",
    )


def _has_incus() -> bool:
    return shutil.which("incus") is not None and incusd.is_installed()


def _incus_packages(progress: Progress) -> list[str]:
    """What Incus is called here: the daemon without virtual machines where it is on its own."""
    for wanted in (["incus-base", "incus-client"], ["incus"]):
        if all(apt.available(package) for package in wanted):
            return wanted
    _add_backports(progress)
    return ["incus-base", "incus-client"]


def _add_backports(progress: Progress) -> None:
    """Debian 12 has Incus in its backports only."""
    release, sources = apt.read_release(), apt.read_sources()
    source = apt.backports_source(sources, release)
    if release.id != "debian" or source is None:
        raise StepFailedError(
            f"No package of Incus is known to apt on {release.pretty_name}",
            "Use Debian 12, Debian 13 or Ubuntu 24.04 (there with the component universe).",
        )
    if not apt.has_backports(sources, release):
        _BACKPORTS_FILE.write_text(f"# Made by hutch: Incus is here.\n{source.as_deb822()}")
        apt.update(progress)


def _kernel() -> Step:
    def do(_: Progress) -> str:
        return f"raised {', '.join(kernel.keep_limits())}"

    return Step("Kernel limits", lambda: not kernel.too_low(), do)


# ---- the system user and its folder ---------------------------------------------------------


def _account(site: Site) -> Step:
    def exists() -> bool:
        try:
            pwd.getpwnam(site.user)
        except KeyError:
            return False
        return True

    def do(_: Progress) -> str:
        argv = ["useradd", "--system", "--user-group", "--home-dir", str(site.data)]
        run([*argv, "--no-create-home", "--shell", "/usr/sbin/nologin", site.user])
        return f"made the user {site.user}"

    return Step("System user", exists, do)


def _folders(site: Site) -> Step:
    """The data folder is root's, and sticky: the server keeps its database and key there, and
    still cannot put programs of its own in the place of those that root runs."""

    def do(_: Progress) -> None:
        site.data.mkdir(parents=True, exist_ok=True)
        closed = closed_folder(site.data)
        if site.user not in {"", "root"} and closed is not None:
            raise StepFailedError(
                f"The server's user {site.user} cannot enter {closed}",
                f"Choose another folder with --data DIR, or: chmod o+x {closed}",
            )
        if site.user and os.geteuid() == 0:
            os.chown(site.data, 0, pwd.getpwnam(site.user).pw_gid)
            site.data.chmod(0o1775)
        site.run_folder.mkdir(mode=0o755, exist_ok=True)
        site.log_folder.mkdir(mode=0o750, exist_ok=True)
        save_site(site)

    def is_done() -> bool:
        if not (site.run_folder.is_dir() and site.log_folder.is_dir()):
            return False
        if site.user and os.geteuid() == 0 and site.data.stat().st_mode & 0o7777 != 0o1775:
            return False
        if not (site.data / "site.json").exists():
            return False
        saved = load_site(site.data)
        return (saved.names, saved.simulated_gpus) == (site.names, site.simulated_gpus)

    return Step(f"Data folder {site.data}", is_done, do)


def closed_folder(path: Path) -> Path | None:
    """The first folder above `path` that other accounts cannot pass through."""
    above = reversed(path.absolute().parents)
    return next((folder for folder in above if not folder.stat().st_mode & 0o001), None)


# ---- Incus ----------------------------------------------------------------------------------


def _incus(options: Options, site: Site) -> list[Step]:
    reach = _Reach(site)
    found = [
        _daemon(site),
        _socket_group(site),
        _pool(reach, options.pool),
        Step(
            f"Network {site.names.network}",
            lambda: reach.has(f"/networks/{site.names.network}"),
            lambda _: _told_subnet(reach),
        ),
        Step(
            "Isolation of instances from each other",
            lambda: prepare.is_isolated(reach.api, site.names),
            lambda _: prepare.ensure_isolation(reach.api, site.names),
        ),
        _firewall(site),
        Step(
            f"Incus project {site.names.project}",
            lambda: reach.has(f"/projects/{site.names.project}"),
            lambda _: prepare.ensure_project(reach.api, site.names.project),
        ),
        Step(
            "Profile of the project",
            lambda: prepare.has_profile(reach.api, site.names),
            lambda _: prepare.ensure_profile(reach.api, site.names),
        ),
    ]
    for name in options.images:
        found += _image(name, site, reach)
    return found


@dataclass(slots=True)
class _Reach:
    """The engine, reached when a step first needs it."""

    site: Site
    _api: IncusApi | None = None

    @property
    def api(self) -> IncusApi:
        if self._api is None:
            self._api = IncusApi(self.site.socket)
        return self._api

    def has(self, path: str) -> bool:
        return self.api.find(path) is not None


def _daemon(site: Site) -> Step:
    def answers() -> bool:
        with IncusApi(site.socket) as api:
            return api.answers()

    def do(_: Progress) -> str:
        if site.daemon is Daemon.FOREIGN:
            raise StepFailedError(
                f"Nothing answers at {site.socket} any more, where an engine was found before",
                "Start that Incus or LXD again, then run ./quickstart again.",
            )
        if site.daemon is Daemon.UNITS:
            run(["systemctl", "enable", "--now", "lxcfs.service"], timeout=60)
            run(["systemctl", "enable", "--now", "incus.socket", "incus.service"], timeout=300)
            return "started by systemd"
        supervisor.start_engine(site)
        return "started"

    return Step(
        "Incus",
        answers,
        do,
        advice=f"What it said is in {site.log_folder}/incusd.log.",
    )


def _socket_group(site: Site) -> Step:
    """The server is no root: it reaches the engine as a member of the socket's group."""

    def group() -> str:
        return grp.getgrgid(site.socket.stat().st_gid).gr_name

    def do(_: Progress) -> str:
        if group() == "root":
            raise StepFailedError(
                f"The socket {site.socket} belongs to the group root",
                "Start Incus with --group incus-admin.",
            )
        save_site(replace(site, groups=(group(),)))
        return f"the server joins {group()}"

    return Step(
        "Access to Incus",
        lambda: load_site(site.data).groups == (group(),),
        do,
    )


def _pool(reach: _Reach, wish: str) -> Step:
    name = reach.site.names.pool

    def do(_: Progress) -> str:
        driver = choose_driver(_drivers(reach.api), wish)
        place = reach.site.incus_folder
        size = prepare.pool_size(place if place.exists() else Path("/var/lib"))
        if size < GiB:
            raise StepFailedError(
                f"Only {size / GiB:.1f} GiB would be left for instances' disks",
                "Free some space, then run ./quickstart again.",
            )
        prepare.ensure_pool(reach.api, name, driver, size)
        return f"{driver}, grows up to {size // GiB} GiB"

    return Step(f"Storage pool {name}", lambda: reach.has(f"/storage-pools/{name}"), do)


def _drivers(api: IncusApi) -> set[str]:
    """The storage drivers the engine can work with on this machine."""
    environment = cast("dict[str, Any]", api.get("")["environment"])
    drivers = cast("list[dict[str, Any]]", environment["storage_supported_drivers"])
    return {str(driver["Name"]) for driver in drivers}


def choose_driver(offered: set[str], wish: str) -> PoolDriver:
    """btrfs, else ZFS. Plain folders have no disk limits and no cheap snapshots: only if told.

    ZFS restores none but the latest snapshot, and hutch takes one of the present before it
    restores another: there a restore fails, and is undone.

    Raises:
        StepFailedError: the engine offers nothing that fits.
    """
    candidates = ("btrfs", "zfs") if wish == "auto" else (wish,)
    for driver in candidates:
        if driver in offered:
            return cast("PoolDriver", driver)
    raise StepFailedError(
        f"Incus offers no storage driver {' or '.join(candidates)} on this machine",
        "Install zfsutils-linux or btrfs-progs and a kernel with the module, or accept plain"
        " folders with no disk limits: ./quickstart --pool dir",
    )


def _told_subnet(reach: _Reach) -> str:
    name = reach.site.names.network
    prepare.ensure_network(reach.api, name)
    return str(prepare.subnet_of(reach.api, name))


def _firewall(site: Site) -> Step:
    bridge = site.names.network

    def do(_: Progress) -> str:
        return f"{', '.join(firewall.open_bridge(bridge))} now lets {bridge} through"

    return Step("Other firewalls on this machine", lambda: firewall.problem(bridge) is None, do)


def _image(name: str, site: Site, reach: _Reach) -> list[Step]:
    recipe = image.read_recipe(name)
    cache = site.data / "cache"
    alias = f"/images/aliases/{recipe.name}"

    def is_built() -> bool:
        return image.tar_path(cache, recipe).exists()

    def is_imported() -> bool:
        with reach.api.in_project(site.names.project) as api:
            known = api.find(alias)
            tar = image.tar_path(cache, recipe)
            return known is not None and known["target"] == image.fingerprint(tar)

    def build(progress: Progress) -> str:
        tar = image.ensure_built(cache, progress, name)
        return f"{tar.stat().st_size // 1024**2} MiB"

    def hand_over(progress: Progress) -> None:
        with reach.api.in_project(site.names.project) as api:
            image.ensure_imported(api, image.tar_path(cache, recipe), recipe.name)
            progress("unpacking it once")
            image.warm_up(api, recipe.name)

    return [
        Step(f"Image {recipe.name}: building it from this machine's mirrors", is_built, build),
        Step(f"Image {recipe.name}: handing it to Incus", is_imported, hand_over),
    ]
