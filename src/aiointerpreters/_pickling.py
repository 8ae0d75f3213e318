"""Pickle, where classes and functions of the main script are found on both sides.

The main script's module is ``__main__`` in the program and ``__mp_main__`` in a worker; a pickle
may name either, on either side.
"""

import io
import pickle
from typing import Any

from . import _core, _finding, _main

PROTOCOL = 5


class _Unpickler(pickle.Unpickler):
    def find_class(self, module_name: str, global_name: str, /) -> Any:
        if module_name not in _main.NAMES:
            return super().find_class(module_name, global_name)
        return _finding.resolve("module", module_name, global_name)


def dumps(value: object) -> bytes:
    """Pickle ``value``. Raises what pickle or the value's own methods raise."""
    return pickle.dumps(value, PROTOCOL)


def loads(data: bytes) -> Any:
    """Return the value of what :func:`dumps` made in another interpreter.

    Raises what pickle or the value's own methods raise, but nothing that would end the program.
    """
    try:
        return _Unpickler(io.BytesIO(data)).load()
    except (Exception, KeyboardInterrupt, _core.Interrupted):
        raise
    except BaseException as error:
        raise pickle.UnpicklingError(f"{type(error).__name__} while a value was rebuilt") from error
