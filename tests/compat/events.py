"""threading.Event, as far as CPython's tests need it, between interpreters."""

from aiointerpreters import Queue


class Event:
    def __init__(self):
        self._queue = Queue()

    def set(self):
        self._queue.put(None)

    def wait(self):
        self._queue.put(self._queue.get())
