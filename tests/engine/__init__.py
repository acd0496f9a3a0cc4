import pytest

# A failing assertion of the contract says what it compared, as one in a test module does.
pytest.register_assert_rewrite("tests.engine.contract")
