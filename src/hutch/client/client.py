"""Every endpoint of the REST API as a method."""

from hutch.client import answers, paths
from hutch.client.accelerators import Accelerators
from hutch.client.asking import LONGEST_WAIT
from hutch.client.files import Files
from hutch.client.instances import Instances
from hutch.client.lab import Lab
from hutch.client.oneself import Oneself
from hutch.client.ports import Ports
from hutch.client.terminals import Terminals


class Client(Oneself, Instances, Files, Terminals, Ports, Accelerators, Lab):
    """A person at one hutch server. Use it as a context manager, or `close` it.

    Every method raises the HutchError that the server answered, by its code, with the server's
    message and hint, and UnavailableError when no server answers. `ref` is an instance's id, or
    the name of an instance of one's own.
    """

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

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
