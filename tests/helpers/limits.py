"""How long a test waits for what must happen, before it calls that a failure.

These are limits against hanging, never measures of speed. A slow build (AddressSanitizer,
valgrind) raises them all by AIO_TEST_SLOWNESS.
"""

import os

SLOWNESS = float(os.environ.get("AIO_TEST_SLOWNESS", "1"))

#: Seconds for something inside the process to happen.
SOON = 15 * SLOWNESS

#: Seconds for a whole program to end.
PROGRAM = 20 * SLOWNESS
