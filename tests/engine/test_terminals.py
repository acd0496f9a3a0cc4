"""Runs the contract of terminals over every engine."""

from tests.engine.terminals_contract import *  # noqa: F403 - the tests and their fixtures
from tests.engine.test_contract import simulated_site, site  # noqa: F401 - fixtures
