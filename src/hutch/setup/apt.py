"""What the machine's own apt configuration says, and packages installed by it.

Mirrors are only ever taken from there: the sources of the distribution itself are read in both
formats (one-line and deb822), third parties' sources are left out. Pure but for `read_sources`,
`install` and `proxy_options`.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from hutch.setup.commands import CommandError, run, run_showing

_ONE_LINE = re.compile(r"^\s*(deb(?:-src)?)\s+(?:\[([^\]]*)\]\s+)?(\S+)\s+(\S+)\s*(.*)$")
_USER_INFORMATION = re.compile(r"(://)[^/@\s\"]+@")
_BUILT_IN_FIELDS = frozenset({"types", "uris", "suites", "components", "enabled"})


@dataclass(frozen=True, slots=True)
class Source:
    """One entry of an apt source list. `options` keeps the rest, such as Signed-By."""

    uris: tuple[str, ...]
    suites: tuple[str, ...]
    components: tuple[str, ...]
    options: Mapping[str, str] = field(default_factory=dict[str, str])

    def as_deb822(self) -> str:
        """The entry as a stanza of a `.sources` file."""
        lines = [
            "Types: deb",
            f"URIs: {' '.join(self.uris)}",
            f"Suites: {' '.join(self.suites)}",
            f"Components: {' '.join(self.components)}",
            *(f"{name}: {value}" for name, value in self.options.items()),
        ]
        return "\n".join(lines) + "\n"


@dataclass(frozen=True, slots=True)
class Release:
    """The distribution, as /etc/os-release names it."""

    id: str
    codename: str
    version: str
    pretty_name: str

    @property
    def security_suite(self) -> str:
        return f"{self.codename}-security"


def parse_os_release(text: str) -> Release:
    """Raises KeyError when the distribution has no code name (it is not Debian or Ubuntu)."""
    values: dict[str, str] = {}
    for line in text.splitlines():
        name, sign, value = line.partition("=")
        if sign:
            values[name.strip()] = "".join(shlex.split(value))
    codename = values["VERSION_CODENAME"]
    return Release(
        id=values["ID"],
        codename=codename,
        version=values.get("VERSION_ID", codename),
        pretty_name=values.get("PRETTY_NAME", codename),
    )


def parse_one_line(text: str) -> Iterator[Source]:
    """The binary package entries of a `.list` file."""
    for line in text.splitlines():
        found = _ONE_LINE.match(line.split("#", 1)[0])
        if not found or found.group(1) != "deb":
            continue
        _, options, uri, suite, components = found.groups()
        yield Source((uri,), (suite,), tuple(components.split()), _one_line_options(options or ""))


def _one_line_options(text: str) -> dict[str, str]:
    options: dict[str, str] = {}
    for part in text.split():
        name, _, value = part.partition("=")
        spelled = {"arch": "Architectures", "lang": "Languages"}.get(name.lower(), name.title())
        options[spelled] = value.replace(",", " ")
    return options


def parse_deb822(text: str) -> Iterator[Source]:
    """The enabled binary package entries of a `.sources` file."""
    for stanza in re.split(r"\n\s*\n", text):
        fields = _fields(stanza)
        names = {name.lower(): value for name, value in fields.items()}
        enabled = names.get("enabled", "yes").lower() not in {"no", "false", "0", "off"}
        if not enabled or "deb" not in names.get("types", "").split() or "uris" not in names:
            continue
        yield Source(
            tuple(names["uris"].split()),
            tuple(names.get("suites", "").split()),
            tuple(names.get("components", "").split()),
            {name: value for name, value in fields.items() if name.lower() not in _BUILT_IN_FIELDS},
        )


def _fields(stanza: str) -> dict[str, str]:
    """The fields of one stanza; a value keeps its continuation lines (a key written in place)."""
    fields: dict[str, str] = {}
    name = ""
    for line in stanza.splitlines():
        if line.startswith("#"):
            continue
        if line[:1] in {" ", "\t"} and name:
            fields[name] += f"\n{line}"
        elif ":" in line:
            name, _, value = line.partition(":")
            name = name.strip()
            fields[name] = value.strip()
    return fields


def own_sources(sources: Iterable[Source], release: Release) -> list[Source]:
    """The sources of the distribution itself: its suite, its updates and its security fixes.

    An entry signed with a key of someone else, or without the component `main`, is a third
    party's that only names its suites alike.
    """
    wanted = {release.codename, f"{release.codename}-updates", release.security_suite}
    found: list[Source] = []
    for source in sources:
        suites = tuple(suite for suite in source.suites if suite in wanted)
        if suites and "main" in source.components and _signed_by_distribution(source, release):
            found.append(replace(source, suites=suites))
    return found


def _signed_by_distribution(source: Source, release: Release) -> bool:
    signed_by = source.options.get("Signed-By", "")
    if source.uris[0].startswith("cdrom:"):
        return False
    return not signed_by or "BEGIN PGP" in signed_by or f"{release.id}-archive" in signed_by


def backports_source(sources: Iterable[Source], release: Release) -> Source | None:
    """The backports suite on the mirror of the main suite, or None where no mirror is known."""
    for source in own_sources(sources, release):
        if release.codename in source.suites:
            return replace(source, suites=(f"{release.codename}-backports",), components=("main",))
    return None


def has_backports(sources: Iterable[Source], release: Release) -> bool:
    suite = f"{release.codename}-backports"
    return any(suite in source.suites and "main" in source.components for source in sources)


def read_release(root: Path = Path("/")) -> Release:
    return parse_os_release((root / "etc/os-release").read_text())


def read_sources(root: Path = Path("/")) -> list[Source]:
    """Every enabled source of the machine, in apt's order."""
    found: list[Source] = []
    lists = root / "etc/apt/sources.list"
    folder = root / "etc/apt/sources.list.d"
    for path in [lists, *sorted(folder.glob("*.list")), *sorted(folder.glob("*.sources"))]:
        if path.is_file():
            parse = parse_deb822 if path.suffix == ".sources" else parse_one_line
            found.extend(parse(path.read_text()))
    return found


def proxy_options() -> list[str]:
    """apt's proxy settings, one `Name "value";` each, for an apt that has no access to them."""
    text = run(["apt-config", "dump"])
    return re.findall(
        r'^(Acquire::\w+::Proxy(?:::\S+)? ".+";)$', text, re.MULTILINE | re.IGNORECASE
    )


def without_credentials(text: str) -> str:
    """The text with the user and the password of each address in it left out."""
    return _USER_INFORMATION.sub(r"\1", text)


def missing(packages: Iterable[str]) -> list[str]:
    """Which of the packages are not installed."""
    return [package for package in packages if not _installed(package)]


def _installed(package: str) -> bool:
    try:
        state = run(["dpkg-query", "-W", "-f", "${db:Status-Status}", package])
    except CommandError:
        return False
    return state.strip() == "installed"


def available(package: str) -> bool:
    """Whether apt would install the package from some source."""
    text = run(["apt-cache", "policy", package])
    return bool(re.search(r"Candidate: (?!\(none\))\S", text))


def update(line_seen: Callable[[str], None]) -> None:
    """Fetches the lists of packages.

    Raises:
        CommandError: a mirror did not answer.
    """
    run_showing(["apt-get", "update", "-o", "APT::Update::Error-Mode=any"], line_seen)


def install(packages: Iterable[str], line_seen: Callable[[str], None]) -> None:
    """Installs packages without recommendations, waiting for another apt that runs.

    Raises:
        CommandError: apt failed; its last lines are in the message.
    """
    argv = ["apt-get", "install", "-y", "--no-install-recommends", "-o", "DPkg::Lock::Timeout=300"]
    env = {"DEBIAN_FRONTEND": "noninteractive", "NEEDRESTART_MODE": "l"}
    run_showing([*argv, *packages], line_seen, env=env)
