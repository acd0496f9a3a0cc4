"""Images: what instances are created from."""

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True)
class Image:
    id: str
    name: str
    """What people call it; also its alias in the engine."""
    description: str
    pool_size: int
    """How many containers of it each node keeps ready; 0 keeps none."""
    created_at: datetime
