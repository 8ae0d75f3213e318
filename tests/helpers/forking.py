"""Forking a program whose workers are at work."""

import pytest

from helpers.limits import CHECKED

#: Marks a test in which a worker may be allocating memory when the program forks. Where all have
#: been set up and idle (process.at_rest) none does.
busy = pytest.mark.skipif(
    CHECKED, reason="AddressSanitizer's lock for memory may be held for ever in the child"
)
