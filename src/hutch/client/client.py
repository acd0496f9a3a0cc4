"""Every endpoint of the REST API as a method."""

import base64
from collections.abc import Sequence
from typing import Any, TypedDict

from hutch.client import answers, paths
from hutch.client.transport import Transport
from hutch.errors import NotAuthenticatedError

PREFIX = "/api/v1"
LONGEST_WAIT = 60
"""Seconds for which the server keeps a request that waits for an operation."""

Size = int | str
"""Bytes, or a text such as `4GiB`."""


class NewIdle(TypedDict, total=False):
    """What of a policy of idleness is to change."""

    window_minutes: float
    threshold_percent: float
    warning_minutes: float


class Shares(TypedDict, total=False):
    """What a group is to have. None for a limit or a policy takes it away."""

    guarantee: int
    limit: int | None
    weight: float
    idle: NewIdle | None


class Client:
    """A person at one hutch server. Use it as a context manager, or `close` it.

    Every method raises the HutchError that the server answered, by its code, with the server's
    message and hint, and UnavailableError when no server answers. `ref` is an instance's id, or
    the name of an instance of one's own.
    """

    def __init__(
        self,
        url: str,
        token: str | None = None,
        *,
        timeout: float = 30.0,
        on_behalf_of: str | None = None,
    ) -> None:
        """`on_behalf_of` is the address of the person for whom this asks, where it is another's.

        The server believes it of those that it trusts as proxies.
        """
        self._transport = Transport(url, token, timeout=timeout, on_behalf_of=on_behalf_of)
        self._timeout = timeout
        self._signed_in = token is not None

    @property
    def url(self) -> str:
        return self._transport.url

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._transport.close()

    # Oneself

    def login(self, name: str, password: str) -> answers.SignedIn:
        return self._open("POST", "/login", {"name": name, "password": password})

    def logout(self) -> None:
        self._do("POST", "/logout")

    def me(self) -> answers.Me:
        return self._get("/me")

    def change_password(self, old: str, new: str) -> None:
        self._do("PUT", "/me/password", {"old": old, "new": new})

    def list_keys(self, user: str | None = None) -> list[answers.Key]:
        return self._get("/keys", user=user)

    def add_key(
        self, public: str, *, title: str | None = None, user: str | None = None
    ) -> answers.Key:
        return self._do("POST", "/keys", {"public": public, "title": title, "user": user})

    def remove_key(self, key_id: str) -> None:
        self._do("DELETE", f"/keys/{paths.part('key', key_id)}")

    def ssh_config(self, alias: str | None = None) -> answers.SshConfig:
        """What one's ssh has to know; `alias` is what the gateway is called in it."""
        return self._get("/ssh-config", alias=alias)

    def list_tokens(self) -> list[answers.Token]:
        return self._get("/tokens")

    def create_token(self, title: str, *, scope: str, days: int | None) -> answers.NewToken:
        # `days` None means that it never expires, so it is sent, unlike other absent values.
        body = {"title": title, "scope": scope, "days": days}
        return self._request("POST", "/tokens", body=body)

    def revoke_token(self, token_id: str) -> None:
        self._do("DELETE", f"/tokens/{paths.part('token', token_id)}")

    # Instances

    def list_instances(
        self, *, everyone: bool = False, owner: str | None = None
    ) -> list[answers.Instance]:
        """One's own instances and those that others share; with `owner` that person's, as far as
        one may see them. `everyone` is for administrators."""
        return self._get("/instances", all="true" if everyone else None, owner=owner)

    def create_instance(
        self,
        name: str,
        *,
        image: str | None = None,
        cpus: int | None = None,
        memory: Size | None = None,
        disk: Size | None = None,
        node: str | None = None,
    ) -> answers.InstanceBegun:
        return self._do(
            "POST",
            "/instances",
            {"name": name, "image": image, "cpus": cpus, "memory": memory, "disk": disk,
             "node": node},
        )  # fmt: skip

    def show_instance(self, ref: str) -> answers.Instance:
        return self._get(paths.instance(ref))

    def show_usage(self, ref: str) -> answers.Usage:
        return self._get(f"{paths.instance(ref)}/usage")

    def configure_instance(
        self,
        ref: str,
        *,
        cpus: int | None = None,
        memory: Size | None = None,
        disk: Size | None = None,
    ) -> answers.Begun:
        return self._do(
            "PATCH", paths.instance(ref), {"cpus": cpus, "memory": memory, "disk": disk}
        )

    def set_wake(self, ref: str, on_ssh: bool) -> answers.Instance:
        """Say whether coming through the gateway starts an instance that is stopped."""
        return self._do("PUT", f"{paths.instance(ref)}/wake", {"on_ssh": on_ssh})

    def delete_instance(self, ref: str) -> answers.Begun:
        return self._do("DELETE", paths.instance(ref))

    def start_instance(self, ref: str) -> answers.Begun:
        return self._do("POST", f"{paths.instance(ref)}/start")

    def stop_instance(self, ref: str) -> answers.Begun:
        return self._do("POST", f"{paths.instance(ref)}/stop")

    def restart_instance(self, ref: str) -> answers.Begun:
        return self._do("POST", f"{paths.instance(ref)}/restart")

    def rebuild_instance(self, ref: str, *, image: str | None = None) -> answers.Begun:
        return self._do("POST", f"{paths.instance(ref)}/rebuild", {"image": image})

    def execute(
        self,
        ref: str,
        argv: Sequence[str],
        *,
        stdin: bytes = b"",
        timeout: float = 60.0,
        root: bool = False,
    ) -> answers.Ran:
        """Run a program inside a running instance; `timeout` in seconds."""
        return self._request(
            "POST",
            f"{paths.instance(ref)}/exec",
            body={
                "argv": list(argv),
                "stdin": base64.b64encode(stdin).decode("ascii"),
                "timeout": timeout,
                "root": root,
            },
            timeout=timeout + self._timeout,
        )

    def list_snapshots(self, ref: str) -> list[answers.Snapshot]:
        return self._get(f"{paths.instance(ref)}/snapshots")

    def create_snapshot(self, ref: str, name: str) -> answers.SnapshotBegun:
        return self._do("POST", f"{paths.instance(ref)}/snapshots", {"name": name})

    def delete_snapshot(self, ref: str, name: str) -> answers.Begun:
        return self._do("DELETE", f"{paths.instance(ref)}/snapshots/{paths.part('snapshot', name)}")

    def restore_snapshot(self, ref: str, name: str) -> answers.Begun:
        return self._do(
            "POST", f"{paths.instance(ref)}/snapshots/{paths.part('snapshot', name)}/restore"
        )

    def list_shares(self, ref: str) -> list[answers.Share]:
        return self._get(f"{paths.instance(ref)}/shares")

    def share_instance(
        self, ref: str, person: str, *, read_only_view: bool = False, until: str | None = None
    ) -> answers.Share:
        """`until` is a span such as `2d`, or a time as in RFC 3339."""
        return self._do(
            "PUT", paths.share(ref, person), {"read_only_view": read_only_view, "until": until}
        )

    def unshare_instance(self, ref: str, person: str) -> None:
        self._do("DELETE", paths.share(ref, person))

    # Accelerators

    def list_accelerators(self) -> list[answers.Accelerator]:
        return self._get("/accelerators")

    def withdraw_accelerator(self, ref: str, reason: str) -> answers.Accelerator:
        """Take it out of service. `ref` is its id or `node/address`, here and below."""
        return self._do("POST", f"{paths.accelerator(ref)}/withdraw", {"reason": reason})

    def restore_accelerator(self, ref: str) -> answers.Accelerator:
        return self._do("POST", f"{paths.accelerator(ref)}/restore")

    def share_accelerator(self, ref: str, sharers: int) -> answers.Accelerator:
        return self._do("POST", f"{paths.accelerator(ref)}/share", {"sharers": sharers})

    def take(
        self,
        count: int,
        *,
        instance: str | None = None,
        model: str | None = None,
        minutes: int | None = None,
    ) -> answers.Lease:
        """Ask for accelerators, for the only running instance if none is named."""
        return self._do(
            "POST",
            "/leases",
            {"count": count, "instance": instance, "model": model, "minutes": minutes},
        )

    def release(
        self, *, lease: str | None = None, instance: str | None = None
    ) -> list[answers.Lease]:
        """Give back a lease, or all of an instance's; with neither, of the only one with any."""
        return self._request("DELETE", "/leases", query={"lease": lease, "instance": instance})

    def extend(
        self, minutes: int, *, lease: str | None = None, instance: str | None = None
    ) -> answers.Lease:
        body = {"minutes": minutes, "lease": lease, "instance": instance}
        return self._do("PATCH", "/leases", body)

    def list_leases(
        self, *, everyone: bool = False, live: bool = True, instance: str | None = None
    ) -> list[answers.Lease]:
        """Newest first; `live`: without those that have ended."""
        return self._get(
            "/leases",
            all="true" if everyone else None,
            live=None if live else "false",
            instance=instance,
        )

    def show_lease(self, lease_id: str, *, wait: int = 0, seen: str | None = None) -> answers.Lease:
        """A lease; with `wait`, once it is no longer at the version `seen`.

        The answer comes after `wait` seconds (at most LONGEST_WAIT) in any case.
        """
        wait = min(wait, LONGEST_WAIT)
        return self._request(
            "GET",
            f"/leases/{paths.part('lease', lease_id)}",
            query={"wait": wait or None, "seen": seen},
            timeout=wait + self._timeout,
        )

    def list_queue(self) -> list[answers.Lease]:
        """Everyone's waiting leases, node by node, in line."""
        return self._get("/leases/queue")

    def list_history(
        self, *, everyone: bool = False, limit: int | None = None, before: str | None = None
    ) -> list[answers.Lease]:
        """Leases that have ended; `before` is a lease's id, to page back."""
        return self._get(
            "/leases/history", all="true" if everyone else None, limit=limit, before=before
        )

    def report_gpu(
        self,
        *,
        by: str | None = None,
        first: str | None = None,
        last: str | None = None,
        mine: bool = False,
    ) -> answers.GpuReport:
        """Accelerator-hours from a month to a month such as `2026-11`, both included."""
        return self._get(
            "/reports/gpu", by=by, first=first, last=last, mine="true" if mine else None
        )

    def list_notices(
        self, *, unread: bool = False, limit: int | None = None
    ) -> list[answers.Notice]:
        return self._get("/notices", unread="true" if unread else None, limit=limit)

    def read_notices(self, notices: Sequence[str] | None = None) -> answers.Marked:
        """Mark notices as read, all of one's own if none is named."""
        body = {"notices": None if notices is None else list(notices)}
        return self._do("POST", "/notices/read", body)

    def list_ports(self, ref: str) -> list[answers.Port]:
        """An instance's ports but for that of SSH."""
        return self._get(f"{paths.instance(ref)}/ports")

    def list_all_ports(self, *, everyone: bool = False) -> list[answers.Port]:
        """The ports of all instances that one sees; of everyone's for administrators."""
        return self._get("/ports", all="true" if everyone else None)

    def add_port(
        self,
        ref: str,
        port: int,
        *,
        host_port: int | None = None,
        protocol: str | None = None,
        name: str | None = None,
        span: str | None = None,
        local: bool = False,
        open_to: list[str] | None = None,
    ) -> answers.PortBegun:
        return self._do(
            "POST",
            f"{paths.instance(ref)}/ports",
            {"port": port, "host_port": host_port, "protocol": protocol, "name": name,
             "span": span, "local": local, "open_to": open_to},
        )  # fmt: skip

    def configure_port(
        self, ref: str, port: str, *, span: str | None = None, open_to: list[str] | None = None
    ) -> answers.Port:
        return self._do("PATCH", paths.port(ref, port), {"span": span, "open_to": open_to})

    def remove_port(self, ref: str, port: str) -> answers.Begun:
        """`port` is its name, or the instance's port."""
        return self._do("DELETE", paths.port(ref, port))

    # Operations

    def list_operations(
        self, *, everyone: bool = False, live: bool = False, limit: int | None = None
    ) -> list[answers.Operation]:
        return self._get(
            "/operations",
            all="true" if everyone else None,
            live="true" if live else None,
            limit=limit,
        )

    def show_operation(
        self, operation_id: str, *, wait: int = 0, seen: str | None = None
    ) -> answers.Operation:
        """An operation; with `wait`, once it has ended or is no longer at the version `seen`.

        The answer comes after `wait` seconds (at most LONGEST_WAIT) in any case.
        """
        wait = min(wait, LONGEST_WAIT)
        return self._request(
            "GET",
            f"/operations/{paths.part('operation', operation_id)}",
            query={"wait": wait or None, "seen": seen},
            timeout=wait + self._timeout,
        )

    def retry_operation(self, operation_id: str) -> answers.Operation:
        return self._do("POST", f"/operations/{paths.part('operation', operation_id)}/retry")

    # The lab

    def list_users(self) -> list[answers.User]:
        return self._get("/users")

    def add_user(
        self, name: str, *, role: str | None = None, password: str | None = None
    ) -> answers.NewUser:
        return self._do("POST", "/users", {"name": name, "role": role, "password": password})

    def show_user(self, name: str) -> answers.User:
        return self._get(paths.user(name))

    def configure_user(
        self,
        name: str,
        *,
        role: str | None = None,
        instances: int | None = None,
        cpus: int | None = None,
        memory: Size | None = None,
        disk: Size | None = None,
        accelerators: int | None = None,
    ) -> answers.User:
        return self._do(
            "PATCH",
            paths.user(name),
            {"role": role, "instances": instances, "cpus": cpus, "memory": memory, "disk": disk,
             "accelerators": accelerators},
        )  # fmt: skip

    def disable_user(self, name: str) -> answers.User:
        return self._do("POST", f"{paths.user(name)}/disable")

    def enable_user(self, name: str) -> answers.User:
        return self._do("POST", f"{paths.user(name)}/enable")

    def reset_password(self, name: str) -> answers.NewPassword:
        return self._do("POST", f"{paths.user(name)}/reset-password")

    def list_groups(self) -> list[answers.Group]:
        """Every group for an administrator; one's own for everybody else."""
        return self._get("/groups")

    def add_group(self, name: str, shares: Shares) -> answers.Group:
        return self._do("POST", "/groups", {"name": name, **shares})

    def show_group(self, name: str) -> answers.Group:
        return self._get(paths.group(name))

    def configure_group(self, name: str, shares: Shares) -> answers.Group:
        # What is None is sent: it takes a limit away, and leaving it out does not.
        return self._request("PATCH", paths.group(name), body=dict(shares))

    def remove_group(self, name: str) -> None:
        self._do("DELETE", paths.group(name))

    def add_member(self, group: str, user: str) -> answers.Group:
        return self._do("POST", f"{paths.group(group)}/members", {"user": user})

    def remove_member(self, group: str, user: str) -> None:
        self._do("DELETE", paths.member(group, user))

    def set_member_quota(self, group: str, user: str, accelerators: int) -> answers.Group:
        return self._do("PATCH", paths.member(group, user), {"accelerators": accelerators})

    def set_manager(self, group: str, user: str, *, is_manager: bool) -> answers.Group:
        return self._do("PUT", f"{paths.member(group, user)}/manager", {"is_manager": is_manager})

    def list_nodes(self) -> list[answers.Node]:
        return self._get("/nodes")

    def add_node(
        self,
        name: str,
        *,
        engine: str,
        url: str,
        address: str,
        subnet: str,
        project: str | None = None,
        pool: str | None = None,
        network: str | None = None,
    ) -> answers.Node:
        return self._do(
            "POST",
            "/nodes",
            {"name": name, "engine": engine, "url": url, "address": address, "subnet": subnet,
             "project": project, "pool": pool, "network": network},
        )  # fmt: skip

    def cordon_node(self, name: str) -> answers.Node:
        return self._do("POST", f"/nodes/{paths.part('node', name)}/cordon")

    def uncordon_node(self, name: str) -> answers.Node:
        return self._do("POST", f"/nodes/{paths.part('node', name)}/uncordon")

    def set_node_address(self, name: str, address: str) -> answers.Node:
        return self._do("POST", f"/nodes/{paths.part('node', name)}/address", {"address": address})

    def set_node_idle(self, name: str, idle: NewIdle | None) -> answers.Node:
        """When idle accelerators of a node go back; None: as in the lab."""
        return self._request("PATCH", f"/nodes/{paths.part('node', name)}", body={"idle": idle})

    def new_agent_token(self, name: str) -> answers.AgentToken:
        """A token for a node's agent; the one that it had is of no use any more."""
        return self._do("POST", f"/nodes/{paths.part('node', name)}/agent-token")

    def list_images(self) -> list[answers.Image]:
        return self._get("/images")

    def add_image(
        self, name: str, *, description: str | None = None, pool_size: int | None = None
    ) -> answers.Image:
        return self._do(
            "POST", "/images", {"name": name, "description": description, "pool_size": pool_size}
        )

    def set_pool(self, image: str, pool_size: int) -> answers.Image:
        return self._do("PATCH", f"/images/{paths.part('image', image)}", {"pool_size": pool_size})

    def list_events(
        self,
        *,
        limit: int | None = None,
        before: int | None = None,
        by: str | None = None,
        action: str | None = None,
        target: str | None = None,
    ) -> list[answers.Event]:
        """Newest first; `before` is an event's id, to page back."""
        return self._get("/events", limit=limit, before=before, by=by, action=action, target=target)

    # How a request is made

    def _get(self, path: str, **query: str | int | None) -> Any:
        return self._request("GET", path, query=query)

    def _do(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        """A request whose body leaves out what is None: the server's default holds."""
        if body is not None:
            body = {key: value for key, value in body.items() if value is not None}
        return self._request(method, path, body=body)

    def _request(
        self,
        method: str,
        path: str,
        *,
        query: dict[str, str | int | None] | None = None,
        body: dict[str, Any] | None = None,
        timeout: float | None = None,
    ) -> Any:
        if not self._signed_in:
            raise NotAuthenticatedError(
                f"You are not signed in at {self.url}.", hint="Sign in with `hutch login`."
            )
        return self._transport.request(
            method, PREFIX + path, query=query, body=body, timeout=timeout
        )

    def _open(self, method: str, path: str, body: dict[str, Any]) -> Any:
        """A request that needs no sign-in."""
        return self._transport.request(method, PREFIX + path, body=body)
