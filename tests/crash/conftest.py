import pytest

pytest.register_assert_rewrite("tests.crash.library_check")
