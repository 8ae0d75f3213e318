"""Functions that import in their bodies what refuses subinterpreters."""

import os
import sys


def body_imports() -> str:
    import faulthandler

    return faulthandler.__name__


def identity(value: object) -> object:
    return value


def type_name(value: object) -> str:
    return type(value).__name__


def second_type_name(_: object, value: object) -> str:
    return type(value).__name__


def process_id_of(_: object) -> int:
    return os.getpid()


def request() -> str:
    """A context variable of a module that this one does not import."""
    module = sys.modules.get("workfns.refusing")
    return "none" if module is None else str(module.REQUEST.get())
