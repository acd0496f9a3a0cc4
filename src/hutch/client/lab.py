"""What the client asks of people, groups, nodes, images and events."""

from typing import TypedDict

from hutch.client import answers, paths
from hutch.client.asking import Asking, Size


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


class Lab(Asking):
    """What the client asks of people, groups, nodes, images and events."""

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
