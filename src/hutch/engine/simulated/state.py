"""What the simulated engine remembers, and the rules by which that may change."""

import json
import sqlite3
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence

from hutch.domain.ids import ENGINE_PREFIX
from hutch.domain.limits import Limits
from hutch.domain.sizes import MiB, TiB
from hutch.engine.base import ContainerSpec, Device, Forward, Observed, Power
from hutch.engine.simulated.database import Database, new_boot_id
from hutch.engine.simulated.devices import Devices
from hutch.errors import EngineConflictError, EngineError, EngineNotFoundError

IMAGE_SIZE = 300 * MiB
"""What a container's disk shows as used before anything is written to it."""
FOOTPRINT = 4 * MiB
"""What a fresh container costs the pool: it shares the image's blocks."""


class State:
    """Short synchronous calls, each of which raises EngineError or its kin where Incus refuses."""

    def __init__(self, database: Database) -> None:
        self._db = database
        self.devices = Devices(database)
        self._cache: dict[str, Observed] = {}
        self._cached_at: int | None = None

    # -- the node ------------------------------------------------------------------------------

    def boot_id(self) -> str:
        return self._db.one("SELECT value FROM meta WHERE key = 'boot_id'")

    def pool_used(self) -> int:
        """Bytes of the storage pool that are taken."""
        containers = self._db.one("SELECT count(*) FROM containers")
        written = self._db.one("SELECT coalesce(sum(written), 0) FROM containers")
        return len(self.images()) * IMAGE_SIZE + containers * FOOTPRINT + written

    def images(self) -> list[str]:
        return [row[0] for row in self._db.execute("SELECT alias FROM images ORDER BY alias")]

    def add_image(self, alias: str) -> None:
        self._db.execute("INSERT OR IGNORE INTO images VALUES (?)", alias)

    def remove_image(self, alias: str) -> None:
        self._db.execute("DELETE FROM images WHERE alias = ?", alias)

    def reboot(self, *, restore: bool) -> None:
        with self._db.writing():
            self._db.execute("UPDATE meta SET value = ? WHERE key = 'boot_id'", new_boot_id())
            if restore:
                self._db.execute(
                    "UPDATE containers SET started_at = ? WHERE power = 'running'", time.time()
                )
            else:
                self._db.execute("UPDATE containers SET power = 'stopped', started_at = NULL")
            self._db.announce(None, "rebooted")

    # -- what there is -------------------------------------------------------------------------

    def containers(self) -> list[Observed]:
        """All of hutch's containers, read again only where something changed."""
        if self._cached_at is None:
            self._load_all()
        else:
            self._cached_at, changes = self._db.changes_since(self._cached_at)
            names = {change.name for change in changes}
            if None in names:
                self._load_all()
            else:
                for name in names:
                    self._reload(str(name))
        return list(self._cache.values())

    def _reload(self, name: str) -> None:
        seen = self.get(name) if name.startswith(ENGINE_PREFIX) else None
        if seen is None:
            self._cache.pop(name, None)
        else:
            self._cache[name] = seen

    def _load_all(self) -> None:
        # The number first: what changes in between is read twice rather than never.
        self._cached_at = self._db.last_change()
        forwards: dict[str, list[Forward]] = {}
        for row in self._db.execute("SELECT * FROM forwards ORDER BY name"):
            forwards.setdefault(row["container"], []).append(_forward(row))
        devices = self.devices.all()
        rows = self._db.execute(
            "SELECT * FROM containers WHERE name GLOB ? ORDER BY name", f"{ENGINE_PREFIX}*"
        )
        self._cache = {
            row["name"]: _observed(row, forwards.get(row["name"], ()), devices.get(row["name"], ()))
            for row in rows
        }

    def get(self, name: str) -> Observed | None:
        row = self._row(name)
        if row is None:
            return None
        return _observed(row, self._forwards(name), self.devices.of(name))

    def _row(self, name: str) -> sqlite3.Row | None:
        return self._db.row("SELECT * FROM containers WHERE name = ?", name)

    def _require(self, name: str) -> sqlite3.Row:
        row = self._row(name)
        if row is None:
            raise EngineNotFoundError(f"There is no container {name}.", container=name)
        return row

    def _forwards(self, name: str) -> Iterator[Forward]:
        for row in self._db.execute(
            "SELECT * FROM forwards WHERE container = ? ORDER BY name", name
        ):
            yield _forward(row)

    def power(self, name: str) -> Power:
        return Power(self._require(name)["power"])

    def started_at(self, name: str) -> float | None:
        return self._require(name)["started_at"]

    def disk_used(self, name: str) -> int:
        return IMAGE_SIZE + self._require(name)["written"]

    # -- containers ----------------------------------------------------------------------------

    def create(self, spec: ContainerSpec, pool: int) -> None:
        """Make it unless it is there. `pool` is the size of the storage pool in bytes."""
        with self._db.writing():
            if self._row(spec.name) is not None:
                return
            self._refuse_impossible(spec, pool)
            self._db.execute(
                "INSERT INTO containers (name, image, address, limits, labels, nvidia_driver) "
                "VALUES (?, ?, ?, ?, ?, ?)",
                spec.name,
                spec.image,
                spec.address,
                _limits_text(spec.limits),
                _labels_text(spec.labels),
                spec.has_nvidia_driver,
            )
            for forward in spec.forwards:
                self._put_forward(spec.name, forward)
            self._db.announce(spec.name, "created")

    def _refuse_impossible(self, spec: ContainerSpec, pool: int) -> None:
        if spec.image not in self.images():
            raise EngineNotFoundError(f"There is no image {spec.image}.", image=spec.image)
        if self.pool_used() + FOOTPRINT > pool:
            raise EngineError("No space is left in the storage pool.")
        if spec.has_nvidia_driver:
            self.devices.refuse_missing_driver()

    def set_power(self, name: str, power: Power) -> None:
        with self._db.writing():
            before = self.power(name)
            if before is power:
                return
            if power is Power.RUNNING:
                self._refuse_start(name, before)
                self.devices.drop_lost(name)
            self._db.execute(
                "UPDATE containers SET power = ?, started_at = ? WHERE name = ?",
                power,
                time.time() if power is Power.RUNNING else None,
                name,
            )
            self._db.announce(name, "started" if power is Power.RUNNING else power.value)

    def _refuse_start(self, name: str, before: Power) -> None:
        if before is Power.OTHER:
            raise EngineConflictError(f"Container {name} is already running, but frozen.")
        # Incus, too, makes a container with an address that another has, and then refuses to
        # start either.
        address = self._require(name)["address"]
        holder = self._db.one(
            "SELECT name FROM containers WHERE address = ? AND name != ?", address, name
        )
        if holder:
            raise EngineConflictError(f"Address {address} of {name} is also that of {holder}.")

    def delete(self, name: str) -> None:
        with self._db.writing():
            if self._db.execute("DELETE FROM containers WHERE name = ?", name).rowcount:
                self._db.announce(name, "deleted")

    def set_limits(self, name: str, limits: Limits | None) -> None:
        """None takes all limits away."""
        with self._db.writing():
            self._put_limits(name, limits)
            self._db.announce(name, "updated")

    def _put_limits(self, name: str, limits: Limits | None) -> None:
        used = self.disk_used(name)
        if limits is not None and limits.disk < used:
            raise EngineError(
                f"A disk of {limits.disk} bytes is too small: {used} bytes of it are used."
            )
        text = None if limits is None else _limits_text(limits)
        self._db.execute("UPDATE containers SET limits = ? WHERE name = ?", text, name)

    def prepare(
        self, name: str, limits: Limits, forward: Forward, labels: Mapping[str, str]
    ) -> None:
        with self._db.writing():
            self._put_limits(name, limits)
            self._put_forward(name, forward)
            self._put_labels(name, labels)
            self._db.announce(name, "updated")

    def set_labels(self, name: str, labels: Mapping[str, str]) -> None:
        with self._db.writing():
            self._put_labels(name, labels)
            self._db.announce(name, "updated")

    def _put_labels(self, name: str, labels: Mapping[str, str]) -> None:
        kept = json.loads(self._require(name)["labels"])
        self._db.execute(
            "UPDATE containers SET labels = ? WHERE name = ?",
            _labels_text({**kept, **labels}),
            name,
        )

    def set_forward(self, name: str, forward: Forward) -> None:
        with self._db.writing():
            self._require(name)
            self._put_forward(name, forward)
            self._db.announce(name, "updated")

    def _put_forward(self, name: str, forward: Forward) -> None:
        self._refuse_taken_port(name, forward)
        self._db.execute(
            "INSERT OR REPLACE INTO forwards VALUES (?, ?, ?, ?, ?, ?)",
            name,
            forward.name,
            forward.listen_address,
            forward.listen_port,
            forward.target_port,
            forward.protocol,
        )

    def _refuse_taken_port(self, name: str, forward: Forward) -> None:
        holder = self._db.one(
            "SELECT container FROM forwards WHERE listen_port = ? AND listen_address = ? "
            "AND protocol = ? AND NOT (container = ? AND name = ?)",
            forward.listen_port,
            forward.listen_address,
            forward.protocol,
            name,
            forward.name,
        )
        if holder:
            raise EngineConflictError(
                f"Port {forward.listen_port} of {forward.listen_address} already leads to {holder}."
            )

    def remove_forward(self, name: str, forward_name: str) -> None:
        with self._db.writing():
            if self._db.execute(
                "DELETE FROM forwards WHERE container = ? AND name = ?", name, forward_name
            ).rowcount:
                self._db.announce(name, "updated")

    # -- devices of the node -------------------------------------------------------------------

    def attach(self, name: str, devices: Sequence[Device]) -> None:
        with self._db.writing():
            runs = self.power(name) is not Power.STOPPED
            self.devices.put(name, devices, at_once=runs)
            self._db.announce(name, "updated")

    def detach(self, name: str, devices: Sequence[str]) -> None:
        with self._db.writing():
            if self.devices.remove(name, devices):
                self._db.announce(name, "updated")

    def set_nvidia_driver(self, name: str, wanted: bool) -> None:
        with self._db.writing():
            self._require(name)
            if wanted:
                self.devices.refuse_missing_driver()
            self._db.execute("UPDATE containers SET nvidia_driver = ? WHERE name = ?", wanted, name)
            self._db.announce(name, "updated")

    # -- snapshots -----------------------------------------------------------------------------

    def snapshots(self, name: str) -> list[str]:
        self._require(name)
        rows = self._db.execute("SELECT name FROM snapshots WHERE container = ? ORDER BY id", name)
        return [row[0] for row in rows]

    def snapshot(self, name: str, snapshot: str) -> None:
        with self._db.writing():
            if snapshot in self.snapshots(name):
                return
            number = self._db.execute(
                "INSERT INTO snapshots (container, name) VALUES (?, ?)", name, snapshot
            ).lastrowid
            self._db.execute(
                "INSERT INTO snapshot_files SELECT ?, path, content FROM files WHERE container = ?",
                number,
                name,
            )
            self._db.execute(
                "INSERT INTO snapshot_nodes SELECT ?, path, kind, mode, uid, gid, modified, target"
                " FROM nodes WHERE container = ?",
                number,
                name,
            )
            self._db.announce(name, "snapshot created")

    def restore(self, name: str, snapshot: str) -> None:
        with self._db.writing():
            power = self.power(name)
            number = self._db.one(
                "SELECT id FROM snapshots WHERE container = ? AND name = ?", name, snapshot
            )
            if number is None:
                raise EngineNotFoundError(f"Container {name} has no snapshot {snapshot}.")
            if power is not Power.STOPPED:
                raise EngineError(f"Container {name} must be stopped before it is restored.")
            self._db.execute("DELETE FROM files WHERE container = ?", name)
            self._db.execute(
                "INSERT INTO files SELECT ?, path, content FROM snapshot_files WHERE snapshot = ?",
                name,
                number,
            )
            self._db.execute("DELETE FROM nodes WHERE container = ?", name)
            self._db.execute(
                "INSERT INTO nodes SELECT ?, path, kind, mode, uid, gid, modified, target"
                " FROM snapshot_nodes WHERE snapshot = ?",
                name,
                number,
            )
            self._recount(name)
            self._db.announce(name, "restored")

    def delete_snapshot(self, name: str, snapshot: str) -> None:
        with self._db.writing():
            if self._db.execute(
                "DELETE FROM snapshots WHERE container = ? AND name = ?", name, snapshot
            ).rowcount:
                self._db.announce(name, "snapshot deleted")

    # -- files ---------------------------------------------------------------------------------

    def read(self, name: str, path: str) -> bytes | None:
        """A file that was written inside; None when it was not (the image may have one)."""
        self._require(name)
        return self._db.one(
            "SELECT content FROM files WHERE container = ? AND path = ?", name, path
        )

    def write(self, name: str, files: Sequence[tuple[str, bytes]]) -> bool:
        """Write files inside, all or none; False when the container's disk is too small."""
        if sum(len(content) for _, content in files) > self.room(name):
            return False
        with self._db.writing():
            for path, content in files:
                self._db.execute(
                    "INSERT OR REPLACE INTO files VALUES (?, ?, ?)", name, path, content
                )
                self._db.execute(
                    "UPDATE nodes SET modified = ? WHERE container = ? AND path = ?",
                    int(time.time()), name, path,
                )  # fmt: skip
            self._recount(name)
        return True

    def room(self, name: str) -> int:
        """Bytes that still fit on a container's disk."""
        row = self._require(name)
        limits = _limits(row["limits"])
        return TiB if limits is None else limits.disk - IMAGE_SIZE - row["written"]

    def size(self, name: str, path: str) -> int | None:
        """The size of a file that was written; None when there is none."""
        return self._db.one(
            "SELECT length(content) FROM files WHERE container = ? AND path = ?", name, path
        )

    def slice(self, name: str, path: str, offset: int, size: int) -> bytes:
        found = self._db.one(
            "SELECT substr(content, ?, ?) FROM files WHERE container = ? AND path = ?",
            offset + 1, size, name, path,
        )  # fmt: skip
        return found or b""

    def node(self, name: str, path: str) -> sqlite3.Row | None:
        """What is known of a path besides content."""
        self._require(name)
        return self._db.row("SELECT * FROM nodes WHERE container = ? AND path = ?", name, path)

    def set_node(self, name: str, path: str, *values: object) -> None:
        """`values` are the columns after the path, in the table's order."""
        with self._db.writing():
            self._db.execute(
                "INSERT OR REPLACE INTO nodes (container, path, kind, mode, uid, gid, modified,"
                " target) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                name, path, *values,
            )  # fmt: skip

    def children(self, name: str, folder: str) -> list[str]:
        """The names right below a folder."""
        head = folder.rstrip("/") + "/"
        found: set[str] = set()
        rows = self._db.execute(
            "SELECT path FROM files WHERE container = ?1 AND path > ?2 AND path < ?3 UNION"
            " SELECT path FROM nodes WHERE container = ?1 AND path > ?2 AND path < ?3",
            name, head, head[:-1] + "0",
        )  # fmt: skip
        for row in rows:
            found.add(row[0][len(head) :].partition("/")[0])
        return sorted(found - {""})

    def remove(self, name: str, path: str) -> None:
        with self._db.writing():
            self._remove(name, path)
            self._recount(name)

    def _remove(self, name: str, path: str) -> None:
        self._db.execute("DELETE FROM files WHERE container = ? AND path = ?", name, path)
        self._db.execute("DELETE FROM nodes WHERE container = ? AND path = ?", name, path)

    def move(self, name: str, path: str, to: str) -> None:
        """Give what is at a path, and below it, another name, in place of what had that."""
        with self._db.writing():
            self._remove(name, to)
            moved = (to, len(path) + 1, name, path, f"{path}/", f"{path}0")
            self._db.execute(
                "UPDATE files SET path = ?1 || substr(path, ?2) WHERE container = ?3"
                " AND (path = ?4 OR (path > ?5 AND path < ?6))",
                *moved,
            )
            self._db.execute(
                "UPDATE nodes SET path = ?1 || substr(path, ?2) WHERE container = ?3"
                " AND (path = ?4 OR (path > ?5 AND path < ?6))",
                *moved,
            )
            self._recount(name)

    def _recount(self, name: str) -> None:
        self._db.execute(
            "UPDATE containers SET written = (SELECT coalesce(sum(length(content)), 0) "
            "FROM files WHERE container = containers.name) WHERE name = ?",
            name,
        )


def _labels_text(labels: Mapping[str, str]) -> str:
    return json.dumps({key: value for key, value in labels.items() if value})


def _limits_text(limits: Limits) -> str:
    return json.dumps([limits.cpus, limits.memory, limits.disk, limits.processes])


def _limits(text: str | None) -> Limits | None:
    return Limits(*json.loads(text)) if text else None


def _forward(row: sqlite3.Row) -> Forward:
    return Forward(
        row["name"], row["listen_address"], row["listen_port"], row["target_port"], row["protocol"]
    )


def _observed(row: sqlite3.Row, forwards: Iterable[Forward], devices: Iterable[Device]) -> Observed:
    return Observed(
        name=row["name"],
        power=Power(row["power"]),
        address=row["address"],
        limits=_limits(row["limits"]),
        forwards=tuple(forwards),
        labels=json.loads(row["labels"]),
        devices=tuple(devices),
        has_nvidia_driver=bool(row["nvidia_driver"]),
    )
