"""Makes a bare server into a hutch node: `python -m hutch.setup`, which `./quickstart` calls.

Every part is a step with a check and a doing (`steps.py`), so that a second run repairs what is
missing and changes nothing else. `prepare.py` and `private.py` are also used by the tests and the
benchmarks, which work in an Incus of their own.
"""
