"""The steps from a machine that is ready to a first instance one can log in to.

The administrator is made in the database; all else goes through the API, as that administrator.
"""

from __future__ import annotations

import json
import os
import pwd
import socket
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hutch.client import Client, load_login, save_login
from hutch.client.answers import Instance, Node
from hutch.domain import names
from hutch.domain.nodes import EngineKind
from hutch.domain.ssh_config import split_place
from hutch.domain.sshkeys import parse_public_key
from hutch.errors import HutchError, InvalidNameError
from hutch.settings import Settings, load_settings
from hutch.settings_text import as_toml
from hutch.setup import daemons, files, host, person, prepare, service
from hutch.setup.commands import run
from hutch.setup.image import read_recipe
from hutch.setup.incus_api import IncusApi
from hutch.setup.options import Options
from hutch.setup.person import Person
from hutch.setup.site import Site, load_site
from hutch.setup.steps import Progress, Step, StepFailedError
from hutch.setup.subnets import choose_subnet

FIRST = "first"
#: Shares of a small node's capacity that the first instance takes at most.
_SHARE = 2
_CREATE_SECONDS = 300
_AGENT_SECONDS = 20
_WITHOUT = "To try hutch's leases without one: ./quickstart --simulated-gpus 4"
#: The first node of a hutch has no name anybody chose.
_FALLBACK_NODE = "node1"


@dataclass(slots=True)
class Launch:
    """What the steps learn on the way and tell at the end."""

    options: Options
    site: Site
    who: Person
    administrator: str = ""
    password: str | None = None
    """Known only at the run that made the administrator."""
    instance: Instance | None = None
    _clients: list[Client] = field(default_factory=list[Client])

    @property
    def settings(self) -> Settings:
        flags: dict[str, Any] = dict(self.options.settings)
        return load_settings(data=self.site.data, **flags)

    @property
    def url(self) -> str:
        return daemons.server_url(self.settings)

    @property
    def gateway_place(self) -> str:
        """Where people reach the SSH gateway, as HOST:PORT."""
        settings = self.settings
        if settings.gateway_address:
            address, port = split_place(settings.gateway_address, settings.gateway_port)
        else:
            address, port = settings.gateway_host or host.host_address(), settings.gateway_port
        return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"

    @property
    def gateway_fingerprint(self) -> str:
        """Of its host key, as ssh shows it at the first connection."""
        first, *_ = self.client().ssh_config()["known_hosts"].splitlines()
        return parse_public_key(first.partition(" ")[2]).fingerprint

    def client(self) -> Client:
        """The API, as the administrator whose sign-in the person has."""
        if not self._clients:
            with person.acting_as(self.who):
                login = load_login(self.who.login_file, environment={})
            self._clients.append(Client(self.url, login.token))
        return self._clients[0]

    def is_signed_in(self) -> bool:
        """Whether the server runs, and takes the person's sign-in for an administrator's."""
        try:
            return self.client().me()["role"] == "admin"
        except HutchError:
            return False

    def sign_in_again(self) -> None:
        self._clients.clear()


def steps(launch: Launch) -> list[Step]:
    """Everything that needs the server."""
    found = [
        _command(launch),
        _settings(launch),
        _administrator(launch),
        _server(launch),
        _sign_in(launch),
        _node(launch),
        _agent(launch),
        _gateway(launch),
        *(_image(launch, name) for name in launch.options.images),
        _key(launch),
    ]
    if launch.options.first_instance:
        found.append(_first(launch))
        if launch.site.engine is EngineKind.INCUS:
            found.append(_known_host(launch))
    return found


# ---- the command, the settings, the server --------------------------------------------------


def _command(launch: Launch) -> Step:
    """`hutch` on the PATH. A file that is not our link is left alone."""
    link = launch.options.command_folder / "hutch"
    target = Path(sys.executable).parent / "hutch"

    def do(_: Progress) -> str:
        link.parent.mkdir(parents=True, exist_ok=True)
        if link.is_symlink():
            link.unlink()
        elif link.exists():
            raise StepFailedError(
                f"{link} is there already, and is not hutch's",
                "Move it away, or choose another folder: --command-dir DIR",
            )
        link.symlink_to(target)
        return str(link)

    return Step("The command hutch", lambda: link.is_symlink() and link.readlink() == target, do)


def _settings(launch: Launch) -> Step:
    """hutch.toml; keys that an administrator set there stay."""
    path = launch.site.data / "hutch.toml"

    def is_done() -> bool:
        saved = load_settings(data=launch.site.data, environment={})
        return path.exists() and saved == _wanted()

    def _wanted() -> Settings:
        flags: dict[str, Any] = dict(launch.options.settings)
        return load_settings(data=launch.site.data, environment={}, **flags)

    def do(_: Progress) -> str:
        # It may hold the database's password: the server reads it, and nobody else.
        is_others = bool(launch.site.user) and os.geteuid() == 0
        group = pwd.getpwnam(launch.site.user).pw_gid if is_others else None
        files.replace_text(path, as_toml(_wanted()), mode=0o640, group=group)
        return str(path)

    return Step("Settings", is_done, do)


def _as_server(launch: Launch, *arguments: str) -> dict[str, str | None]:
    """Runs `hutch.setup.accounts` with the rights of the server's user."""
    argv = [sys.executable, "-m", "hutch.setup.accounts", "--data", str(launch.site.data)]
    user = launch.site.user if os.geteuid() == 0 else ""
    return json.loads(run([*argv, *arguments], user=user))


def _administrator(launch: Launch) -> Step:
    wish = person.administrator_name(launch.who)

    def is_done() -> bool:
        if launch.is_signed_in():
            launch.administrator = launch.client().me()["name"]
            return True
        known = _as_server(launch, "known", wish)["name"]
        launch.administrator = known or ""
        return known is not None

    def do(_: Progress) -> str:
        answer = _as_server(launch, "administrator", wish)
        launch.administrator = str(answer["name"])
        launch.password = answer["password"]
        if launch.password is None:
            return "brought up to date"
        # Told at once: whatever fails after this, nobody can be told again.
        return f"made {launch.administrator}, with the password {launch.password}"

    return Step("Database and administrator", is_done, do)


def _server(launch: Launch) -> Step:
    site, settings = launch.site, launch.settings

    def is_done() -> bool:
        return service.is_current(site) and daemons.server_answers(settings)

    def do(_: Progress) -> str:
        mine = service.is_ours(site)
        if not mine and host.port_in_use(settings.listen_host, settings.listen_port):
            raise StepFailedError(
                f"Another program has port {settings.listen_port} of {settings.listen_host}",
                "Choose another: ./quickstart --set listen_port=7481",
            )
        service.install(load_site(site.data))
        return daemons.server_url(settings)

    return Step("Services", is_done, do, advice=f"What it said is in {site.log_folder}.")


# ---- through the API ------------------------------------------------------------------------


def _sign_in(launch: Launch) -> Step:
    """The command line of the person who runs this, signed in as the administrator."""

    def do(_: Progress) -> str:
        title = f"{launch.who.name} at {socket.gethostname()}"
        token = _as_server(launch, "token", launch.administrator, title)["token"]
        # Read before: the settings are root's, and the person may not look into them.
        url = launch.url
        with person.acting_as(launch.who):
            save_login(launch.who.login_file, url, str(token))
        launch.sign_in_again()
        return f"{launch.who.name} is signed in as {launch.administrator}"

    return Step("Sign-in of the command line", launch.is_signed_in, do)


def _node(launch: Launch) -> Step:
    site = launch.site
    simulated = site.engine is EngineKind.SIMULATED

    def is_done() -> bool:
        nodes = launch.client().list_nodes()
        own = _this_node(nodes)
        # An address of another network card was somebody's choice; one that is gone was not.
        return bool(nodes) and (own is None or simulated or own["address"] in host.own_addresses())

    def do(_: Progress) -> str:
        address = "127.0.0.1" if simulated else host.host_address()
        own = _this_node(launch.client().list_nodes())
        if own is not None:
            launch.client().set_node_address(own["name"], address)
            return f"{own['name']} is at {address} now"
        if simulated:
            subnet = choose_subnet([])
        else:
            with IncusApi(site.socket) as api:
                subnet = prepare.subnet_of(api, site.names.network)
        launch.client().add_node(
            node_name(socket.gethostname()),
            engine=site.engine.value,
            url=site.engine_url,
            address=address,
            subnet=str(subnet),
            project=site.names.project,
            pool=site.names.pool,
            network=site.names.network,
        )
        return f"{node_name(socket.gethostname())} at {address}"

    return Step("This machine as a node", is_done, do)


def _this_node(nodes: list[Node]) -> Node | None:
    """The node that an earlier run added for this machine, if there is one of its name."""
    name = node_name(socket.gethostname())
    return next((node for node in nodes if node["name"] == name), None)


def _agent(launch: Launch) -> Step:
    """The node's agent, with a token of its own: without it accelerators are given to nobody."""
    site = launch.site

    def do(_: Progress) -> str:
        if not site.agent_token.exists():
            own = _this_node(launch.client().list_nodes())
            if own is None:
                raise StepFailedError(
                    "This machine is a node under another name than its own",
                    "See `hutch node list`, then: hutch node token NAME",
                )
            token = launch.client().new_agent_token(own["name"])["token"]
            files.replace_text(site.agent_token, token + "\n", mode=0o600)
        service.install_agent(site)
        return _found_by_agent(launch)

    return Step(
        "Agent of this node",
        lambda: service.agent_is_current(site),
        do,
        advice=f"What it said is in {site.log_folder}/agent.log.",
    )


def _gateway(launch: Launch) -> Step:
    """The SSH gateway. One that runs already hands over, and its sessions run on."""
    site, settings = launch.site, launch.settings
    port = settings.gateway_port

    def do(_: Progress) -> str:
        where = settings.gateway_host or "0.0.0.0"  # noqa: S104
        if not service.gateway_is_ours(site, port) and host.port_in_use(where, port):
            raise StepFailedError(
                f"Another program has port {port}, where the SSH gateway is to listen",
                "Choose another: ./quickstart --set gateway_port=2223",
            )
        service.install_gateway(site, settings)
        return f"answers at port {port}"

    return Step(
        "SSH gateway",
        lambda: service.gateway_is_current(site, settings),
        do,
        advice=f"What it said is in {site.log_folder}/gateway.log.",
    )


def _found_by_agent(launch: Launch) -> str:
    """Waits until the agent has told what there is, and says it."""
    client = launch.client()
    until = time.monotonic() + _AGENT_SECONDS
    while time.monotonic() < until:
        own = _this_node(client.list_nodes())
        known = client.list_accelerators()
        told = own is not None and own["agent"] is not None
        if told and len(known) >= launch.site.simulated_gpus:
            models = Counter(each["model"] for each in known)
            found = ", ".join(f"{count} × {model}" for model, count in sorted(models.items()))
            return found or f"this machine has no accelerator. {_WITHOUT}"
        time.sleep(0.1)
    raise StepFailedError(f"It has said nothing for {_AGENT_SECONDS} seconds")


def node_name(host_name: str) -> str:
    """A node's name from the machine's: its first part, where hutch allows that as a name."""
    try:
        return names.instance_name(host_name.split(".")[0].lower())
    except InvalidNameError:
        return _FALLBACK_NODE


def _image(launch: Launch, name: str) -> Step:
    recipe = read_recipe(name)

    def is_done() -> bool:
        return any(image["name"] == recipe.name for image in launch.client().list_images())

    def do(_: Progress) -> None:
        from hutch.setup import apt

        description = recipe.description.format(pretty_name=apt.read_release().pretty_name)
        launch.client().add_image(recipe.name, description=description)

    return Step(f"Image {recipe.name} for everyone", is_done, do)


def _key(launch: Launch) -> Step:
    """The administrator has one of the person's own SSH keys."""

    def is_done() -> bool:
        known = {key["fingerprint"] for key in launch.client().list_keys()}
        return any(_fingerprint(key) in known for key in person.public_keys(launch.who))

    def do(_: Progress) -> str:
        usable = [key for key in person.public_keys(launch.who) if _fingerprint(key)]
        made = not usable
        key = person.make_key(launch.who) if made else usable[0]
        launch.client().add_key(key)
        return f"{'made and added' if made else 'added'} {_fingerprint(key)}"

    return Step("SSH key", is_done, do)


def _fingerprint(key: str) -> str:
    """Empty for a key that hutch takes for too weak."""
    try:
        return parse_public_key(key).fingerprint
    except HutchError:
        return ""


# ---- the first instance ---------------------------------------------------------------------


def _first(launch: Launch) -> Step:
    """Made once: who deleted it does not want it back at the next run, so any instance counts."""

    def is_done() -> bool:
        mine = launch.client().list_instances()
        named = [instance for instance in mine if instance["name"] == FIRST]
        launch.instance = next(iter([*named, *mine]), None)
        return launch.instance is not None and launch.instance["state"] == "running"

    def do(progress: Progress) -> str:
        client = launch.client()
        if launch.instance is None:
            node = client.list_nodes()[0]
            begun = _create(client, node, launch.settings)
        elif launch.instance["state"] == "stopped":
            return f"{launch.instance['name']} is stopped, and stays so"
        else:
            begun = _repaired(client, launch.instance)
        _wait(client, begun, progress)
        launch.instance = client.show_instance(FIRST)
        return f"{FIRST} runs"

    return Step(f"Instance {FIRST}", is_done, do, advice="See: hutch operation list")


def _repaired(client: Client, instance: Instance) -> str:
    """The operation that is at work on an instance, or was given up and is tried again."""
    for operation in client.list_operations():
        if operation["target"]["id"] == instance["id"]:
            if operation["state"] in {"pending", "running"}:
                return operation["id"]
            if operation["state"] == "stuck":
                return client.retry_operation(operation["id"])["id"]
    return client.start_instance(instance["id"])["operation"]["id"]


def _create(client: Client, node: Node, settings: Settings) -> str:
    """Begins the first instance with the lab's default limits, less where the machine is small."""
    limits = settings.default_limits
    begun = client.create_instance(
        FIRST,
        cpus=max(1, min(limits.cpus, node["cpus"])),
        memory=min(limits.memory, node["memory"] // _SHARE),
        disk=min(limits.disk, node["disk"] // _SHARE),
    )
    return begun["operation"]["id"]


def _wait(client: Client, operation_id: str, progress: Progress) -> None:
    until = time.monotonic() + _CREATE_SECONDS
    seen = None
    while time.monotonic() < until:
        operation = client.show_operation(operation_id, wait=5, seen=seen)
        seen = operation["version"]
        progress(operation["message"])
        if operation["state"] == "done":
            return
        if operation["state"] not in {"pending", "running"}:
            error = operation["error"]
            said = error["message"] if error else operation["message"]
            raise StepFailedError(
                f"It is {operation['state']}: {said}", (error or {}).get("hint", "")
            )
    raise StepFailedError(f"It is not there after {_CREATE_SECONDS} seconds")


def _known_host(launch: Launch) -> Step:
    """The instance's host key is known, so that the first login asks no question."""

    def is_done() -> bool:
        if launch.instance is None:
            return True
        ssh = launch.instance["ssh"]
        line = person.known_host_line(ssh["host"], ssh["port"], ssh["host_key"])
        return person.knows_host(launch.who, line)

    def do(_: Progress) -> None:
        assert launch.instance is not None  # noqa: S101 (see is_done)
        ssh = launch.instance["ssh"]
        person.remember_host(launch.who, ssh["host"], ssh["port"], ssh["host_key"])

    return Step("Host key", is_done, do)
