"""What a worker has imported; this module imports nothing that a bare interpreter has not."""

import sys


def loaded(*_: object) -> list[str]:
    return list(sys.modules)


def attributes_of_the_package() -> list[str]:
    """Names of the package that a worker gets for the asking, as it gets `_core`."""
    import aiointerpreters

    everything: dict[str, object] = {}
    exec("from aiointerpreters import *", everything)
    assert set(aiointerpreters.__all__) <= set(everything)
    assert aiointerpreters._core is sys.modules["aiointerpreters._core"]
    return dir(aiointerpreters)
