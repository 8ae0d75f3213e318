"""Loads `typing`, whole, before anything that makes dataclasses.

In a worker two threads may import at a time: the one that runs calls, and its event loop's.
`dataclasses` takes `typing` from ``sys.modules`` as it is there, half loaded too. Importing this
first waits until it is whole. Asyncio, `logging` and `traceback` make dataclasses when loaded.
"""

import typing as typing
