"""Runs the contract of files over every engine."""

from tests.engine.contract import Site, make  # noqa: F401 - fixtures
from tests.engine.files_contract import *  # noqa: F403 - the tests and their fixtures
from tests.engine.test_contract import simulated_site, site  # noqa: F401 - fixtures
