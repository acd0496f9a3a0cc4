"""An engine that runs nothing, for tests, for demonstrations and for machines without Incus.

It answers as Incus does, also where Incus refuses; one contract suite holds both to that. Its
state is a file (`state.py`), so it outlives a killed server just as real containers do. It can be
told to be slow, to fail and to die (`faults.py`).
"""

from hutch.engine.simulated.engine import SimulatedEngine
from hutch.engine.simulated.faults import AS_INCUS, Faults

__all__ = ["AS_INCUS", "Faults", "SimulatedEngine"]
