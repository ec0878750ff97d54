"""What every backend must do, whatever it stores in: subclass a suite and give it a store."""

import pytest

pytest.register_assert_rewrite("tests.conformance.user_store", "tests.conformance.key_store")
