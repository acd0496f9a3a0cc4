"""hutch's settings: one typed object, read from defaults, then a file, then the environment.

The file is TOML (`hutch.toml` in the data folder). Every key is also an environment variable,
`HUTCH_` and the key in capitals. A value that cannot be is refused at start with its key, the
value, and what is allowed.
"""

import os
import re
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from hutch.domain.groups import IdlePolicy
from hutch.domain.limits import SMALLEST_DISK, SMALLEST_MEMORY, Holding, Limits
from hutch.domain.nodes import Overcommit
from hutch.domain.sizes import LARGEST, format_size, parse_size
from hutch.domain.ssh_config import split_place
from hutch.errors import ConfigurationError, InvalidSizeError
from hutch.settings_file import read

PREFIX = "HUTCH_"
_SIZES = {
    "default_memory": (SMALLEST_MEMORY, LARGEST),
    "default_disk": (SMALLEST_DISK, LARGEST),
    "quota_memory": (0, LARGEST),
    "quota_disk": (0, LARGEST),
    "disk_reserve": (0, LARGEST),
    "largest_body": (1024, 1024**3),
}
"""The keys that are sizes, with the least and the most that each may be."""
_LABEL = r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"
_DOMAIN = re.compile(rf"{_LABEL}(\.{_LABEL})+", re.ASCII)
_ORIGIN = re.compile(r"https?://([a-z0-9.-]{1,253}|\[[0-9a-f:.]+\])(:[0-9]{1,5})?", re.ASCII)
_SECRET_KEYS = frozenset({"database_url"})
"""Keys whose values may carry a password: never repeated in a message."""


class Settings(BaseModel):
    """Everything an administrator can set. The field's description is the file's comment."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    data: Path = Field(
        default=Path("/var/lib/hutch"),
        description="The folder with the database, the secret key, logs and caches.",
    )
    database_url: str = Field(
        default="",
        repr=False,
        description=(
            "Where the database is: sqlite:///path/to/file, or"
            " postgresql://user:password@host/name. Empty: hutch.db in the data folder."
        ),
    )
    listen_host: str = Field(
        default="127.0.0.1", description="The address on which the server listens."
    )
    listen_port: int = Field(
        default=7480, ge=1, le=65535, description="The TCP port on which the server listens."
    )
    trusted_proxies: list[str] = Field(
        default_factory=lambda: ["127.0.0.1", "::1"],
        description="Addresses of reverse proxies whose X-Forwarded-For header is believed.",
    )
    ssh_port_first: int = Field(
        default=22000, ge=1024, le=65535, description="The first host port given to instances."
    )
    ssh_port_last: int = Field(
        default=29999, ge=1024, le=65535, description="The last host port given to instances."
    )
    port_first: int = Field(
        default=30000,
        ge=1024,
        le=65535,
        description="The first host port that people may lead to a port of an instance.",
    )
    port_last: int = Field(
        default=32767, ge=1024, le=65535, description="The last of these host ports."
    )

    public_url: str = Field(
        default="",
        description=(
            "Where people's browsers reach hutch, such as https://hutch.example.org."
            " Needed with apps_domain."
        ),
    )
    apps_domain: str = Field(
        default="",
        description=(
            "Each app gets a host below this domain, such as apps.example.org, whose every name"
            " leads here. Empty: apps are below hutch's own address."
        ),
    )
    apps_answer_seconds: float = Field(
        default=300.0, gt=0, le=86_400, description="How long an app may take to begin an answer."
    )

    default_cpus: int = Field(
        default=2, ge=1, le=1024, description="Processors of an instance that names no number."
    )
    default_memory: int = Field(
        default=4 * 1024**3, description="Memory of an instance that names no size, such as 4GiB."
    )
    default_disk: int = Field(
        default=20 * 1024**3, description="Disk of an instance that names no size, such as 20GiB."
    )
    default_processes: int = Field(
        default=8192, ge=64, le=1_000_000, description="Processes and threads of an instance."
    )

    quota_instances: int = Field(
        default=5,
        ge=0,
        le=1_000_000,
        description="Instances a person may have, unless set for the person.",
    )
    quota_cpus: int = Field(
        default=16, ge=0, le=1_000_000, description="Processors a person may have in all."
    )
    quota_memory: int = Field(
        default=64 * 1024**3, description="Memory a person may have in all, such as 64GiB."
    )
    quota_disk: int = Field(
        default=500 * 1024**3, description="Disk a person may have in all, such as 500GiB."
    )
    quota_accelerators: int = Field(
        default=4, ge=0, le=100_000, description="Accelerators a person may hold at once."
    )
    quota_ports: int = Field(
        default=20,
        ge=0,
        le=100_000,
        description="Host ports a person may lead to their instances in all, besides those of SSH.",
    )
    accelerator_sharers: int = Field(
        default=1,
        ge=1,
        le=64,
        description=(
            "How many leases may hold an accelerator at once, from when it is first found on."
            " 1: one holder at a time."
        ),
    )
    overcommit_cpus: float = Field(
        default=8.0, ge=1, le=100, description="How often a node's processors may be promised."
    )
    overcommit_memory: float = Field(
        default=2.0, ge=1, le=100, description="How often a node's memory may be promised."
    )
    overcommit_disk: float = Field(
        default=4.0, ge=1, le=100, description="How often a node's disk may be promised."
    )
    disk_reserve: int = Field(
        default=1024**3,
        description="Space of a node's pool that must be free before it takes a new instance.",
    )
    snapshots_per_instance: int = Field(
        default=10, ge=0, le=1000, description="Snapshots an instance may have."
    )
    keys_per_user: int = Field(default=20, ge=1, le=1000, description="SSH keys a person may have.")

    lease_default_minutes: int = Field(
        default=480, ge=1, le=525_600, description="Minutes of a lease that names no time."
    )
    lease_longest_minutes: int = Field(
        default=10_080, ge=1, le=525_600, description="Minutes that a lease may ask for at most."
    )
    lease_warning_minutes: int = Field(
        default=30, ge=0, le=10_080, description="Minutes before its end that a holder is told."
    )
    borrow_protection_minutes: int = Field(
        default=60,
        ge=0,
        le=525_600,
        description="Minutes for which borrowed accelerators are safe from being reclaimed.",
    )
    reclaim_warning_minutes: int = Field(
        default=10,
        ge=0,
        le=10_080,
        description="Minutes between telling a borrower and taking the accelerators back.",
    )
    release_grace_seconds: float = Field(
        default=10.0,
        ge=0,
        le=600,
        description="What a process gets to end by itself when its accelerator goes back.",
    )
    idle_window_minutes: int = Field(
        default=60,
        ge=0,
        le=525_600,
        description="Minutes without computing after which a lease is taken back; 0: never.",
    )
    idle_threshold_percent: float = Field(
        default=5.0, ge=0, le=100, description="Utilisation below which an accelerator is idle."
    )
    idle_warning_minutes: int = Field(
        default=15,
        ge=0,
        le=10_080,
        description="Minutes between the warning and taking an idle accelerator back.",
    )
    usage_half_life_hours: float = Field(
        default=168.0,
        gt=0,
        le=87_600,
        description="After so many hours past usage counts half in the queue's order.",
    )
    agent_silence_seconds: float = Field(
        default=15.0,
        ge=1,
        le=3600,
        description="After so long without a word from its agent a node's accelerators wait.",
    )
    sample_seconds: float = Field(
        default=60.0,
        ge=0.5,
        le=3600,
        description="The span of time that one row of an accelerator's history stands for.",
    )
    samples_days: int = Field(
        default=90, ge=1, le=36_500, description="Days for which that history is kept."
    )

    operations_at_once: int = Field(
        default=16,
        ge=1,
        le=256,
        description="Operations that one server works on at the same time.",
    )
    operation_lease_seconds: float = Field(
        default=15.0,
        ge=0.5,
        le=600,
        description="How long a server that died keeps its operations from another.",
    )
    operation_attempts: int = Field(
        default=5,
        ge=1,
        le=100,
        description="Unforeseen errors in a row after which an operation waits for you.",
    )
    reconcile_seconds: float = Field(
        default=30.0,
        ge=0.2,
        le=3600,
        description="Pause between two comparisons of what should be with what is.",
    )
    events_days: int = Field(
        default=730, ge=1, le=36_500, description="Days for which events are kept."
    )
    operations_days: int = Field(
        default=90,
        ge=1,
        le=36_500,
        description="Days for which ended operations and notices are kept.",
    )

    login_failures: int = Field(
        default=10,
        ge=1,
        le=10_000,
        description="Failed sign-ins per name or address within the window.",
    )
    login_window_seconds: int = Field(
        default=300,
        ge=1,
        le=604_800,
        description="The window in which failed sign-ins are counted.",
    )
    login_days: int = Field(
        default=30, ge=1, le=3650, description="Days for which a sign-in of the CLI is valid."
    )
    gateway_host: str = Field(
        default="", description="The address on which the SSH gateway listens; empty: all of them."
    )
    gateway_port: int = Field(
        default=2222, ge=1, le=65535, description="The TCP port on which the SSH gateway listens."
    )
    gateway_processes: int = Field(
        default=0,
        ge=0,
        le=64,
        description="Gateway processes that share the port; 0: one for every four processors.",
    )
    gateway_address: str = Field(
        default="",
        description=(
            "Where people reach the gateway, as HOST or HOST:PORT; empty: at the first node's"
            " address."
        ),
    )
    gateway_alias: str = Field(
        default="lab",
        pattern=r"^[a-z][a-z0-9-]{0,62}$",
        description="What the gateway is called in the ssh configuration that hutch writes.",
    )
    gateway_server_url: str = Field(
        default="",
        description=(
            "Where the gateway's commands reach the server; empty: listen_host and listen_port."
        ),
    )
    gateway_connections: int = Field(
        default=2000,
        ge=1,
        le=100_000,
        description="Connections of people that a gateway has at once, all its processes together.",
    )
    gateway_connections_per_person: int = Field(
        default=64, ge=1, le=100_000, description="The same of one person."
    )
    gateway_waiting: int = Field(
        default=256,
        ge=8,
        le=100_000,
        description=(
            "Connections at once of one gateway process that have not logged in; one more, and the"
            " oldest goes."
        ),
    )
    gateway_failures: int = Field(
        default=100,
        ge=1,
        le=100_000,
        description="Failed logins of one address within login_window_seconds.",
    )
    gateway_register: Literal["password", "never"] = Field(
        default="password",
        description="What somebody registers a first key with at the gateway, if that is possible.",
    )
    gateway_login_seconds: float = Field(
        default=60.0, ge=1, le=3600, description="What a connection gets to log in."
    )
    gateway_idle_minutes: float = Field(
        default=1440.0,
        ge=0,
        le=525_600,
        description="Minutes without a byte after which a connection is ended; 0: never.",
    )
    gateway_silence_seconds: int = Field(
        default=60,
        ge=6,
        le=3600,
        description="Sessions end when their instance's node has not answered for so long.",
    )
    gateway_wake_seconds: float = Field(
        default=60.0,
        ge=1,
        le=3600,
        description="How long somebody who comes by ssh waits for an instance that starts.",
    )

    terminals_per_person: int = Field(
        default=16, ge=1, le=10_000, description="Web terminals that a person has at once."
    )
    terminal_keep_minutes: float = Field(
        default=10.0,
        ge=0,
        le=1440,
        description="How long a shell waits for its web terminal's connection to come back.",
    )
    terminal_idle_minutes: float = Field(
        default=720.0,
        ge=0,
        le=525_600,
        description="Minutes without a word typed after which a web terminal ends; 0: never.",
    )

    largest_body: int = Field(
        default=1024**2, description="The largest request body, such as 1MiB."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="The least severe message that is logged."
    )
    log_format: Literal["json", "console"] = Field(
        default="json", description="One JSON object per line, or text for a terminal."
    )

    @field_validator("*", mode="before")
    @classmethod
    def _no_truth(cls, value: object) -> object:
        # TOML's true would count as 1.
        if isinstance(value, bool):
            raise ValueError("give a number or a text, not true or false")  # noqa: TRY004
        return value

    @field_validator(*_SIZES, mode="before")
    @classmethod
    def _size(cls, value: object, info: ValidationInfo) -> object:
        least, most = _SIZES[info.field_name or ""]
        if isinstance(value, str):
            try:
                value = 0 if value.strip() == "0" else parse_size(value)
            except InvalidSizeError as error:
                raise ValueError(error.hint) from None
        if isinstance(value, int) and not least <= value <= most:
            raise ValueError(f"give {format_size(least)} to {format_size(most)}")
        return value

    @field_validator("trusted_proxies", mode="before")
    @classmethod
    def _list(cls, value: object) -> object:
        if isinstance(value, str):
            return [part.strip() for part in value.split(",") if part.strip()]
        return value

    @field_validator("gateway_address")
    @classmethod
    def _place(cls, value: str) -> str:
        if value:
            split_place(value, 1)
        return value

    @field_validator("apps_domain")
    @classmethod
    def _domain(cls, value: str) -> str:
        if value and not _DOMAIN.fullmatch(value):
            raise ValueError("give a name such as apps.example.org")
        return value

    @field_validator("public_url")
    @classmethod
    def _origin(cls, value: str) -> str:
        if value and not _ORIGIN.fullmatch(value):
            raise ValueError("give https://HOST or http://HOST:PORT, without a path")
        return value

    @field_validator("database_url")
    @classmethod
    def _database(cls, value: str) -> str:
        if value and not value.startswith(("sqlite:///", "postgresql://")):
            raise ValueError("begin with sqlite:/// or postgresql://")
        return value

    @model_validator(mode="after")
    def _ports(self) -> "Settings":
        if self.ssh_port_last < self.ssh_port_first:
            raise ValueError("ssh_port_last must not be below ssh_port_first")
        if self.port_last < self.port_first:
            raise ValueError("port_last must not be below port_first")
        if self.apps_domain and not self.public_url:
            raise ValueError("apps_domain needs public_url: browsers are sent there to sign in")
        host = re.sub(r":[0-9]+\Z", "", self.public_url.partition("://")[2])
        if self.apps_domain and f".{host}".endswith(f".{self.apps_domain}"):
            raise ValueError("public_url must not be below apps_domain: its names are the apps'")
        return self

    @property
    def database(self) -> str:
        return self.database_url or f"sqlite:///{self.data / 'hutch.db'}"

    @property
    def default_limits(self) -> Limits:
        return Limits(
            self.default_cpus, self.default_memory, self.default_disk, self.default_processes
        )

    @property
    def default_quota(self) -> Holding:
        return Holding(
            self.quota_instances,
            self.quota_cpus,
            self.quota_memory,
            self.quota_disk,
            self.quota_accelerators,
        )

    @property
    def idle_policy(self) -> IdlePolicy:
        """The lab's, where neither the group nor the node has one of its own."""
        return IdlePolicy(
            timedelta(minutes=self.idle_window_minutes),
            self.idle_threshold_percent / 100,
            timedelta(minutes=self.idle_warning_minutes),
        )

    @property
    def overcommit(self) -> Overcommit:
        return Overcommit(self.overcommit_cpus, self.overcommit_memory, self.overcommit_disk)


def load_settings(
    file: Path | None = None,
    environment: Mapping[str, str] | None = None,
    **flags: Any,
) -> Settings:
    """Read the settings: defaults < `file` < HUTCH_* variables < `flags` that are not None.

    Without `file`, HUTCH_CONFIG names it, else `hutch.toml` in the data folder is read if it is
    there. Raises ConfigurationError that names the key, the value and what is allowed.
    """
    environment = os.environ if environment is None else environment
    given = {key: value for key, value in flags.items() if value is not None}
    from_environment = {
        name: environment[PREFIX + name.upper()]
        for name in Settings.model_fields
        if PREFIX + name.upper() in environment
    }
    if file is None and "HUTCH_CONFIG" in environment:
        file = Path(environment["HUTCH_CONFIG"])
    if file is None:
        data = given.get("data") or from_environment.get("data") or Settings().data
        file = Path(data) / "hutch.toml"
        from_file: dict[str, Any] = read(file) if file.exists() else {}
    else:
        from_file = read(file)
    try:
        return Settings.model_validate(from_file | from_environment | given)
    except ValidationError as error:
        raise _explained(error, file, from_file, from_environment) from None


def _explained(
    error: ValidationError,
    file: Path,
    from_file: Mapping[str, Any],
    from_environment: Mapping[str, str],
) -> ConfigurationError:
    """The first complaint of pydantic in the words of who wrote the value."""
    first = error.errors(include_url=False)[0]
    key = str(first["loc"][0]) if first["loc"] else "settings"
    if key in from_environment:
        place = f"the environment variable {PREFIX}{key.upper()}"
    elif key in from_file:
        place = str(file)
    else:
        place = "the settings"
    if first["type"] == "extra_forbidden":
        return ConfigurationError(
            f"{place} has an unknown key {key!r}.",
            hint="`hutch config show` prints every key with what it means.",
            key=key,
        )
    written = from_environment.get(key, from_file.get(key, first["input"]))
    value = "(hidden)" if key in _SECRET_KEYS else repr(written)
    reason = first["msg"].removeprefix("Value error, ")
    if key == "settings":
        return ConfigurationError(f"The settings do not fit together: {reason}.", key=key)
    return ConfigurationError(
        f"{key} = {value} in {place} is not allowed: {reason}.",
        hint=f"{key}: {Settings.model_fields[key].description}",
        key=key,
    )
