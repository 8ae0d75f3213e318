"""Let the system have no room for another thread, in a program of its own (Linux)."""

import ctypes
import os
import resource
import struct
import threading

#: Some user who runs nothing else, so that only this program's threads count.
_NOBODY = 64_999
_CAP_SYS_ADMIN, _CAP_SYS_RESOURCE = 21, 24
_LINUX_CAPABILITY_VERSION_3 = 0x20080522


def prepare() -> None:
    """To be called first: the superuser is not limited, and each thread has that of its own."""
    if os.getuid() != 0:
        return
    libc = ctypes.CDLL(None, use_errno=True)
    header = ctypes.create_string_buffer(struct.pack("Ii", _LINUX_CAPABILITY_VERSION_3, 0))
    data = ctypes.create_string_buffer(24)  # effective, permitted, inheritable: low, then high
    if libc.capget(header, data):
        raise OSError(ctypes.get_errno(), "capget")
    sets = list(struct.unpack("6I", data.raw[:24]))
    sets[0] &= ~(1 << _CAP_SYS_ADMIN | 1 << _CAP_SYS_RESOURCE)
    os.setresuid(_NOBODY, 0, 0)  # files stay what they were: the effective user counts for them
    data = ctypes.create_string_buffer(struct.pack("6I", *sets))
    if libc.capset(header, data):
        raise OSError(ctypes.get_errno(), "capset")


def allow(more: bool) -> None:
    """Whether more threads may be started from now on, by any thread."""
    _, most = resource.getrlimit(resource.RLIMIT_NPROC)
    resource.setrlimit(resource.RLIMIT_NPROC, (most if more else 0, most))


def is_effective() -> bool:
    """Whether the system goes by that limit here."""
    allow(False)
    try:
        thread = threading.Thread(target=str)
        thread.start()
        thread.join()
    except RuntimeError:
        return True
    finally:
        allow(True)
    return False
