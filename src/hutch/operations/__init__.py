"""Durable work: what the engine is asked to do, step by step, so that no crash loses it."""

from hutch.operations.runner import Runner

__all__ = ["Runner"]
