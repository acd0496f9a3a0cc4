"""Comparing what should be with what is, for ever: operations are begun, observations corrected.

A reconciler takes no input and keeps nothing that it could not find out again; its next pass is
its retry. `Reconcilers` runs all of them.
"""

from hutch.reconcilers.loop import Reconcilers

__all__ = ["Reconcilers"]
