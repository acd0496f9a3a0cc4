"""Ends what was shared until a moment that has come."""

from hutch.services import shares
from hutch.services.context import Context


class Shares:
    name = "shares"

    def __init__(self, context: Context) -> None:
        self._context = context

    async def reconcile(self) -> float | None:
        following = await shares.end_due(self._context)
        if following is None:
            return None
        return max(0.0, (following - self._context.now()).total_seconds())
