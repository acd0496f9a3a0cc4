"""What the client asks of ports."""

from hutch.client import answers, paths
from hutch.client.asking import Asking


class Ports(Asking):
    """What the client asks of ports."""

    def list_apps(self) -> list[answers.App]:
        """What one may open in a browser; `url` may be a path at the server's address."""
        return self._get("/apps")

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
        reach: str | None = None,
        open_to: list[str] | None = None,
        keep_path: bool = False,
    ) -> answers.PortBegun:
        return self._do(
            "POST",
            f"{paths.instance(ref)}/ports",
            {"port": port, "host_port": host_port, "protocol": protocol, "name": name,
             "span": span, "reach": reach, "open_to": open_to, "keep_path": keep_path},
        )  # fmt: skip

    def configure_port(
        self,
        ref: str,
        port: str,
        *,
        span: str | None = None,
        open_to: list[str] | None = None,
        keep_path: bool | None = None,
    ) -> answers.Port:
        return self._do(
            "PATCH",
            paths.port(ref, port),
            {"span": span, "open_to": open_to, "keep_path": keep_path},
        )

    def remove_port(self, ref: str, port: str) -> answers.Begun:
        """`port` is its name, or the instance's port."""
        return self._do("DELETE", paths.port(ref, port))
