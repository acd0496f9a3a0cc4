"""What the client asks of accelerators, their leases and their use."""

from collections.abc import Sequence

from hutch.client import answers, paths
from hutch.client.asking import LONGEST_WAIT, Asking


class Accelerators(Asking):
    """What the client asks of accelerators, their leases and their use."""

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
