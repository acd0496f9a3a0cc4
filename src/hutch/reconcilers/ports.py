"""Takes away ports that were opened until a moment that has come."""

from hutch.services import ports
from hutch.services.context import Context


class Ports:
    name = "ports"

    def __init__(self, context: Context) -> None:
        self._context = context

    async def reconcile(self) -> float | None:
        following = await ports.end_due(self._context)
        if following is None:
            return None
        return max(0.0, (following - self._context.now()).total_seconds())
