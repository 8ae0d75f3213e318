"""What functions in a worker had better not do, and some do: its outcome is defined too."""

import os
import select
import signal
import sys
import threading
import time
from typing import Any

kept: list[Any] = []


# ---- threads that outlive their call ----------------------------------------------------------


def _start(target: Any, *args: Any, name: str) -> None:
    threading.Thread(target=target, args=args, name=name).start()


def leave_a_spinning_thread(announce_fd: int) -> None:
    """It tells what ends it."""

    def spin() -> None:
        os.write(announce_fd, b".")
        try:
            while True:
                pass
        except BaseException as error:
            os.write(announce_fd, type(error).__name__[:1].encode())
            raise

    _start(spin, name="spinner")


def leave_a_blocked_thread(announce_fd: int, wait_fd: int) -> None:
    """In C code, which can't be interrupted, until the gate opens."""

    def block() -> None:
        os.write(announce_fd, b".")
        os.read(wait_fd, 1)

    _start(block, name="blocked")


def leave_a_thread_in_an_event() -> None:
    _start(threading.Event().wait, name="eternal")


def leave_a_stubborn_thread(announce_fd: int, wait_fd: int) -> None:
    """It swallows whatever is raised in it, until the gate opens."""

    def go_on() -> None:
        os.write(announce_fd, b".")
        while True:
            try:
                while not select.select([wait_fd], [], [], 0)[0]:
                    pass
                return
            except OSError:  # the test has ended
                return
            except BaseException:
                os.write(announce_fd, b"s")

    _start(go_on, name="stubborn")


def leave_an_executor(*marks: tuple[int, bytes]) -> int:
    """With work in it, and a thread that waits for more."""
    import concurrent.futures

    executor = concurrent.futures.ThreadPoolExecutor(1)
    kept.append(executor)
    result = executor.submit(abs, -42).result()
    for fd, mark in marks:
        executor.submit(os.write, fd, mark)
    return result


def start_a_daemon_thread() -> None:
    threading.Thread(target=time.sleep, args=(100,), daemon=True).start()


def fail_in_a_thread(hook_fd: int | None = None) -> None:
    if hook_fd is not None:
        threading.excepthook = lambda args: os.write(hook_fd, args.exc_type.__name__.encode())
    thread = threading.Thread(target=divmod, args=(1, 0), name="failing")
    thread.start()
    thread.join()


# ---- processes --------------------------------------------------------------------------------


def fork() -> int:
    return os.fork()


def become_another_program() -> None:
    os.execv(sys.executable, [sys.executable, "-c", ""])


def spawn_and_wait() -> int:
    child = os.posix_spawn(sys.executable, [sys.executable, "-c", "raise SystemExit(5)"], {})
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def run_in_a_shell() -> int:
    return os.waitstatus_to_exitcode(os.system("exit 3"))


def run_a_subprocess_with_a_hook() -> None:
    import subprocess

    subprocess.run([sys.executable, "-c", ""], preexec_fn=int, check=True)


def run_a_multiprocessing_process(method: str) -> Any:
    import multiprocessing

    process = multiprocessing.get_context(method).Process(target=sys.exit, args=(5,))
    process.start()
    process.join()
    return process.exitcode


def make_a_multiprocessing_pool() -> Any:
    import multiprocessing

    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.map(abs, [-1])


def put_into_a_multiprocessing_queue() -> None:
    import multiprocessing

    multiprocessing.get_context("spawn").Queue().put(1)


def use_a_process_pool() -> Any:
    import concurrent.futures
    import multiprocessing

    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=context) as executor:
        return executor.submit(abs, -1).result()


# ---- signals ----------------------------------------------------------------------------------


def handle_signals() -> None:
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)


def set_wakeup_fd() -> None:
    signal.set_wakeup_fd(-1)


def send_a_signal(number: int) -> None:
    os.kill(os.getpid(), number)


def raise_a_signal(number: int) -> None:
    signal.raise_signal(number)


def block_signals() -> list[int]:
    """In this thread, for good."""
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT, signal.SIGTERM])
    return sorted(signal.pthread_sigmask(signal.SIG_BLOCK, []))


# ---- what belongs to the interpreter ----------------------------------------------------------


def replace_streams() -> str:
    import io

    sys.stdout = sys.stderr = io.StringIO()
    print("into nothing")
    return sys.stdout.getvalue()


def remove_streams() -> None:
    sys.stdout = sys.stderr = sys.stdin = None  # type: ignore[assignment]
    print("nowhere")


def close_streams() -> None:
    sys.stdout.close()
    sys.stderr.close()


def forget_paths() -> None:
    sys.path.clear()
    sys.path_importer_cache.clear()


def forget_our_modules() -> None:
    for name in list(sys.modules):
        if name.startswith("aiointerpreters"):
            del sys.modules[name]


def forget_threading() -> None:
    sys.modules.pop("threading", None)


def forget_all_modules() -> None:
    sys.modules.clear()


def hide_failures_module() -> None:
    sys.modules["aiointerpreters._failures"] = None  # type: ignore[assignment]
    raise ValueError("told somehow")


def break_builtins() -> None:
    import builtins

    for name in ("len", "isinstance", "print", "__import__"):
        setattr(builtins, name, None)


def collect_no_garbage() -> None:
    import gc

    gc.disable()
    gc.freeze()


def trace_everything() -> None:
    sys.settrace(lambda *_: None)
    sys.setprofile(lambda *_: None)


def monitor_everything() -> None:
    monitoring = sys.monitoring
    monitoring.use_tool_id(monitoring.PROFILER_ID, "abuse")
    monitoring.register_callback(
        monitoring.PROFILER_ID, monitoring.events.PY_START, lambda *_: None
    )
    monitoring.set_events(monitoring.PROFILER_ID, monitoring.events.PY_START)


def trace_and_raise() -> None:
    def trace(*_: Any) -> None:
        raise LookupError("the tracer")

    sys.settrace(trace)


def limit_recursion() -> None:
    sys.setrecursionlimit(60)


def allow_any_recursion(depth: int) -> int:
    def recurse(left: int) -> int:
        return 1 + recurse(left - 1) if left else 0

    sys.setrecursionlimit(10**9)
    return recurse(depth)


def switch_rarely() -> None:
    sys.setswitchinterval(1000)


def make_warnings_errors() -> None:
    import warnings

    warnings.simplefilter("error")


def audit_with_errors() -> None:
    """From now on, whatever the interpreter would tell an auditor fails."""

    def refuse(event: str, _: Any) -> None:
        if not event.startswith(("sys.", "gc.", "import", "marshal", "object.", "_thread.")):
            raise LookupError(event)

    sys.addaudithook(refuse)


def set_no_excepthook() -> None:
    sys.excepthook = None  # type: ignore[assignment]
    sys.unraisablehook = None  # type: ignore[assignment]
    raise ValueError("without a hook")


def import_module(name: str) -> None:
    __import__(name)


# ---- what belongs to the process --------------------------------------------------------------


def change_directory(path: str) -> str:
    os.chdir(path)
    return os.getcwd()


def set_environment_variable(name: str, value: str) -> str:
    os.environ[name] = value
    return os.environ[name]


# ---- at the worker's end ----------------------------------------------------------------------


def fail_at_exit() -> None:
    import atexit

    atexit.register(divmod, 1, 0)


def exit_at_exit() -> None:
    import atexit

    atexit.register(sys.exit, 3)


def start_a_thread_at_exit(fd: int) -> None:
    import atexit

    atexit.register(lambda: threading.Thread(target=os.write, args=(fd, b"t")).start())


class Raising:
    def __init__(self, error: BaseException) -> None:
        self.error = error

    def __del__(self) -> None:
        raise self.error


def keep_what_raises_when_deleted(exits: bool) -> None:
    kept.append(Raising(SystemExit(3) if exits else LookupError("deleted")))


# ---- a runner in a worker ---------------------------------------------------------------------


def leave_a_runner_open(announce_fd: int | None = None) -> int:
    """Idle, or at work without end."""
    import asyncio

    from aiointerpreters import Runner
    from workfns import waiting

    runner = Runner(workers=1).start()
    kept.append(runner)

    async def main() -> int:
        if announce_fd is not None:
            kept.append(runner.submit(waiting.announce_and_spin, announce_fd))
        else:
            return await runner.run(abs, -1)
        return 1

    return asyncio.run(main())


def close_a_runner_at_work(announce_fd: int) -> None:
    """It ends behind this call, when its own has, which has no end."""
    import asyncio

    from aiointerpreters import Runner
    from workfns import waiting

    async def main() -> None:
        runner = Runner(workers=1).start()
        kept.append((runner, runner.submit(waiting.announce_and_spin, announce_fd)))
        runner.close()

    asyncio.run(main())


def leave_a_runner_with_a_thread_in_an_event(close: bool) -> None:
    import asyncio

    from aiointerpreters import Runner

    runner = Runner(workers=1).start()
    kept.append(runner)
    asyncio.run(runner.run(leave_a_thread_in_an_event))
    if close:
        runner.close()


def leave_a_loop_with_pending_tasks() -> int:
    """Neither is it run to its end nor closed."""
    import asyncio

    loop = asyncio.new_event_loop()
    kept.append((loop, loop.create_task(asyncio.sleep(100))))
    return loop.run_until_complete(asyncio.to_thread(abs, -42))
