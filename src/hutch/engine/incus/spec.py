"""A container in Incus's words: what hutch asks for, and how it reads back what is there.

No input or output. Every setting is the container's own: it depends on no profile. Devices of the
node that a container has on loan are worded in `devices.py`: they are named `hutch-<name>_`.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from hutch.domain.limits import Limits
from hutch.domain.sizes import parse_size
from hutch.engine.base import ContainerSpec, Forward, Observed, Power
from hutch.engine.incus import card, devices
from hutch.engine.incus.disks import SLACK_KEY, slack_of
from hutch.errors import EngineError, InvalidSizeError

Json = dict[str, Any]
Config = dict[str, str]

_LABEL_PREFIX = "user.hutch."
_FORWARD_PREFIX = "forward-"
_LABEL = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}", re.ASCII)
_FORWARD_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,31}", re.ASCII)
_ALLOWANCE = re.compile(r"([0-9]+)ms/100ms", re.ASCII)
_PERIOD = 100
"""Milliseconds in which the allowance of processor time is counted."""
_POWER = {"Running": Power.RUNNING, "Stopped": Power.STOPPED}


def instance_body(
    spec: ContainerSpec, *, pool: str, network: str, guest_api: str, start: bool
) -> Json:
    """What to POST for a new container. `guest_api` is the server's name for that setting."""
    card_config, eth0 = card.new(network, spec.address)
    return {
        "name": spec.name,
        "type": "container",
        "source": {"type": "image", "alias": spec.image},
        "profiles": [],
        "start": start,
        "config": {
            **_ISOLATION,
            **card_config,
            guest_api: "false",
            **(devices.NVIDIA_DRIVER if spec.has_nvidia_driver else {}),
            **limits_config(spec.limits),
            **labels_config(spec.labels),
        },
        "devices": {
            "root": {"type": "disk", "path": "/", "pool": pool, "size": str(spec.limits.disk)},
            "eth0": eth0,
            **forward_devices(spec.forwards, spec.address),
        },
    }


# `boot.autostart` is left unset on purpose: Incus then brings back after a restart whatever ran
# before it, which is what the owner last asked for.
_ISOLATION: Config = {
    "security.privileged": "false",
    # A range of uids of its own: root of one container is nobody, also to the others.
    "security.idmap.isolated": "true",
    # Containers within the container. They stay inside its uid range.
    "security.nesting": "true",
    "limits.memory.enforce": "hard",
    # Memory means memory: what is above the limit must not slow down everyone's disk instead.
    "limits.memory.swap": "false",
}


def limits_config(limits: Limits) -> Config:
    """The limits but for the disk's, which is the root device's."""
    return {
        # Time, not a choice of processors: pinning is not enforced on every layout of cgroups.
        "limits.cpu.allowance": f"{limits.cpus * _PERIOD}ms/{_PERIOD}ms",
        "limits.memory": f"{limits.memory}B",
        "limits.processes": str(limits.processes),
    }


def labels_config(labels: Mapping[str, str]) -> Config:
    for key in labels:
        if not _LABEL.fullmatch(key):
            raise EngineError(f"{key[:80]!r} is not a label's name.")
    return {_LABEL_PREFIX + key: value for key, value in labels.items()}


def root_disk(instance: Json) -> dict[str, Config]:
    """The instance's root device by its name. Raises EngineError when it has none of its own."""
    for name, device in instance["devices"].items():
        if device.get("type") == "disk" and device.get("path") == "/":
            return {name: device}
    raise EngineError(
        f"Container {instance['name']} has no root disk of its own.",
        hint="Someone changed its devices by hand: put the disk device back.",
    )


def resized(instance: Json, limits: Limits, *, tidied: bool = False) -> Json:
    """What to PATCH for these limits. Room that a full disk was given stays while its size does
    and until it is `tidied`."""
    ((name, device),) = root_disk(instance).items()
    slack = slack_of(instance)
    now = _size(device)
    keeps_slack = slack and not tidied and now is not None and limits.disk == now - slack
    return {
        "config": {
            **limits_config(limits),
            **({} if keeps_slack or not slack else {SLACK_KEY: ""}),
        },
        "devices": {
            name: {**device, "size": str(limits.disk + (slack if keeps_slack else 0))},
        },
    }


def disk_of(instance: Json) -> int:
    """The size of an instance's or a snapshot's root disk, with the room that it was given."""
    ((_, device),) = root_disk(instance).items()
    return _size(device) or 0


def shrinks(instance: Json, disk: int) -> bool:
    """Whether a disk of this size is smaller than the one that was promised."""
    ((_, device),) = root_disk(instance).items()
    now = _size(device)
    return now is None or disk < now - slack_of(instance)


def _size(device: Config) -> int | None:
    try:
        return parse_size(device["size"])
    except (KeyError, InvalidSizeError):
        return None


# -- forwards ----------------------------------------------------------------------------------


def forward_device(name: str) -> str:
    """The name of the device that is this forward."""
    if not _FORWARD_NAME.fullmatch(name):
        raise EngineError(f"{name[:80]!r} is not a forward's name.")
    return _FORWARD_PREFIX + name


def forward_devices(forwards: Iterable[Forward], address: str) -> dict[str, Config]:
    """Forwards as devices of a container that has this address on the bridge."""
    return {forward_device(each.name): _proxy(each, address) for each in forwards}


def _proxy(forward: Forward, address: str) -> Config:
    protocol, port = forward.protocol, forward.target_port
    listen = f"{protocol}:{forward.listen_address}:{forward.listen_port}"
    if forward.is_local:
        # The kernel's rules carry nothing that comes from loopback; a process of Incus does. It
        # stands inside, and so reaches also what listens there on loopback alone.
        connect = f"{protocol}:127.0.0.1:{port}"
        return {"type": "proxy", "bind": "host", "listen": listen, "connect": connect}
    # In the kernel: no process carries the traffic, and it stands in 40 ms instead of 1 s.
    connect = f"{protocol}:{address}:{port}"
    return {"type": "proxy", "nat": "true", "listen": listen, "connect": connect}


def _forward(name: str, device: Config) -> Forward | None:
    """A forward read back; None when someone rewrote it into something else."""
    try:
        protocol, address, port = _address(device["listen"])
        _, _, target = _address(device["connect"])
    except (KeyError, ValueError):
        return None
    return Forward(name.removeprefix(_FORWARD_PREFIX), address, port, target, protocol)


def _address(text: str) -> tuple[str, str, int]:
    protocol, rest = text.split(":", 1)
    address, port = rest.rsplit(":", 1)
    return protocol, address.strip("[]"), int(port)


# -- reading back ------------------------------------------------------------------------------


def observed(instance: Json) -> Observed:
    """An instance as the server describes it."""
    # Expanded: a device that someone put into a profile counts as much.
    seen: dict[str, Config] = instance.get("expanded_devices") or instance["devices"]
    config: Config = instance["config"]
    forwards = (
        _forward(name, device)
        for name, device in sorted(seen.items())
        if device.get("type") == "proxy" and name.startswith(_FORWARD_PREFIX)
    )
    return Observed(
        name=instance["name"],
        power=_POWER.get(instance["status"], Power.OTHER),
        address=address(instance),
        limits=_limits(config, seen, slack_of(instance)),
        forwards=tuple(forward for forward in forwards if forward),
        labels={
            key.removeprefix(_LABEL_PREFIX): value
            for key, value in config.items()
            if key.startswith(_LABEL_PREFIX)
        },
        devices=devices.devices_of(seen),
        has_nvidia_driver=devices.has_nvidia_driver(config),
    )


def is_whole(instance: Json) -> bool:
    """Whether an instance was made to the end: a server that is killed may leave a mere record.

    Told from what the server notes last. Looking at the disk would tell as well, but the server
    then makes a folder where there is none, and can remove neither folder nor instance after that.
    """
    marks = ("volatile.apply_template", "volatile.last_state.power", "volatile.idmap.current")
    return any(mark in instance["config"] for mark in marks)


def address(instance: Json) -> str | None:
    """The IPv4 address that the container's network card is fixed to."""
    seen: dict[str, Config] = instance.get("expanded_devices") or instance["devices"]
    return seen.get("eth0", {}).get("ipv4.address")


def _limits(config: Config, seen: Mapping[str, Config], slack: int) -> Limits | None:
    root = next((each for each in seen.values() if each.get("path") == "/"), Config())
    allowance = _ALLOWANCE.fullmatch(config.get("limits.cpu.allowance", ""))
    milliseconds = int(allowance.group(1)) if allowance else 0
    if not milliseconds or milliseconds % _PERIOD:
        return None
    try:
        return Limits(
            cpus=milliseconds // _PERIOD,
            memory=parse_size(config["limits.memory"]),
            disk=parse_size(root["size"]) - slack,
            processes=int(config["limits.processes"]),
        )
    except (KeyError, ValueError, InvalidSizeError):
        return None
