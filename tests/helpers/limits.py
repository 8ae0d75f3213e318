"""How long a test waits for what must happen, before it calls that a failure.

These are limits against hanging, never measures of speed. A slow build (AddressSanitizer,
valgrind) raises them all; AIO_TEST_SLOWNESS says by how much.
"""

import os

#: Whether a checker of memory is at work, which slows, grows, and finds leaks itself.
CHECKED = "asan" in os.environ.get("LD_PRELOAD", "") or "VALGRIND_LIB" in os.environ

SLOWNESS = float(os.environ.get("AIO_TEST_SLOWNESS", "4" if CHECKED else "1"))

#: Seconds for something inside the process to happen.
SOON = 15 * SLOWNESS

#: Seconds for a whole program to end.
PROGRAM = 20 * SLOWNESS
