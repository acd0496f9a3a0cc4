"""What the client asks of instances, their snapshots and with whom they are shared."""

import base64
from collections.abc import Sequence

from hutch.client import answers, paths
from hutch.client.asking import Asking, Size


class Instances(Asking):
    """What the client asks of instances, their snapshots and with whom they are shared."""

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
