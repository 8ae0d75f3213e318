"""A model of one event loop that feeds many workers: bounds on paper, and a simulation.

    loop's thread:  submit ─► lock ─► queue          workers:  lock ─► pop ─► task ─► post
         ▲                                                                             │
         └── deliver ◄── one turn: all that is there ◄── mailbox ◄── signal, if empty ◄┘

The system is closed, as a busy server is: so many calls are on their way, and for each result that
is delivered, another call is submitted. All times are microseconds. `scaling.py` measures the
costs; nothing here knows a machine but by them.

Both sides spin for a moment before they sleep, as taskqueue.c and bridge.c have it. Where threads
share cores, one that is woken takes the core of whoever woke it, if none is free. Left out are
priorities, the garbage collector, caches but for the lines that are handed over, and every program
but this one.
"""

import random
from collections import deque
from collections.abc import Generator
from dataclasses import dataclass, field, fields, replace
from statistics import quantiles
from typing import Any, Self

import simpy

# Cache lines that another core has written last and that a call needs here, counted in the source.
# That many at most: what is no atomic operation, processors fetch while they do other things.
#   to submit    the pool's count of references, the loop's channel (count of references, mailbox),
#                the count of unfinished calls; and under the lock, the queue's two
#   to deliver   the task, its message, the pool's count of references
#   to work      pool, channel, unfinished; the task and its message; and the queue's two
QUEUE_LINES = 2
SUBMIT_LINES = 3 + QUEUE_LINES
DELIVER_LINES = 3
WORKER_LINES = 5 + QUEUE_LINES


@dataclass(frozen=True)
class Costs:
    """What things cost, in microseconds."""

    submit: float  # the loop's thread: a call's way into the queue
    deliver: float  # and its result's way to whoever awaits it
    turn: float  # of the loop, more: each time that it looks for what is ready
    round: float  # in place of that, if it has slept
    worker: float  # the worker: all but the task itself
    push: float  # of `submit`, with the lock held, if all lines are in the core's own cache
    pop: float  # of `worker`, likewise
    hand_over: float  # a cache line's way from core to core
    futex_wait: float  # a contended lock: a system call for who waits,
    futex_wake: float  # and one for who lets go
    unpark: float  # waking a worker: the call,
    unpark_latency: float  # and the time until it runs
    signal: float  # waking the loop
    signal_latency: float
    spin: float = 50  # how long an idle worker spins,
    poll: float = 25  # and a loop, after it has submitted

    @property
    def loop(self) -> float:
        """Of the loop's thread per call, if it never sleeps."""
        return self.submit + self.deliver

    @property
    def push_hold(self) -> float:
        """How long a push holds the lock, if a worker had it before."""
        return self.push + QUEUE_LINES * self.hand_over

    @property
    def pop_hold(self) -> float:
        """How long a pop holds the lock, if somebody else had it before."""
        return self.pop + QUEUE_LINES * self.hand_over

    def elsewhere(self, hand_over: float) -> Self:
        """The costs where a line takes so long from core to core, all else the same."""
        more = hand_over - self.hand_over
        return replace(
            self,
            hand_over=hand_over,
            submit=self.submit + SUBMIT_LINES * more,
            deliver=self.deliver + DELIVER_LINES * more,
            worker=self.worker + WORKER_LINES * more,
        )

    @classmethod
    def from_dict(cls, values: dict[str, float]) -> Self:
        """Take what has one of the names."""
        names = {each.name for each in fields(cls)}
        return cls(**{name: value for name, value in values.items() if name in names})


@dataclass(frozen=True)
class Case:
    """What is asked: so many workers, tasks that take so long, …"""

    workers: int
    task: float
    in_flight: int = 0  # 0: what `map` has by default, per loop
    exponential: bool = False  # the tasks' time: fixed, or of that distribution
    cores: int | None = None  # all threads share these; None: each has a core of its own
    loops: int = 1  # loop threads that run in parallel
    queues: int = 1  # each has its share of the workers
    spinning_lock: bool = False  # who finds a lock taken looks again, instead of a system call
    chained_wakes: bool = False  # a worker that takes a task wakes the next, not the loop

    @property
    def calls_in_flight(self) -> int:
        """On their way in all."""
        return self.in_flight or self.loops * max(2 * self.workers // self.loops, 16)


# ---- on paper -----------------------------------------------------------------------------------


def bounds(costs: Costs, case: Case) -> dict[str, float]:
    """Return what each part can do at most, in calls per second: the least is the limit."""
    around = costs.submit + costs.worker + case.task + costs.deliver
    limits = {
        "loop": case.loops / costs.loop,
        "workers": case.workers / (case.task + costs.worker),
        "queue": case.queues / (costs.push_hold + costs.pop_hold),
        "in flight": case.calls_in_flight / around,
    }
    if case.cores is not None:
        limits["cores"] = case.cores / (costs.loop + costs.worker + case.task)
    return {name: limit * 1e6 for name, limit in limits.items()}


def most_workers(costs: Costs, task: float) -> float:
    """How many workers one loop can keep busy with tasks of that length."""
    return (task + costs.worker) / costs.loop


def least_task(costs: Costs, workers: int) -> float:
    """How long tasks must be for one loop to keep so many workers busy."""
    return max(0.0, workers * costs.loop - costs.worker)


# ---- by simulation ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Result:
    """What came out."""

    rate: float  # calls per second
    loop_use: float  # how much of its time the loop's thread was busy
    worker_use: float  # how much of the workers' time went into tasks
    contended: float  # share of lockings that found the lock taken
    p50: float  # of the time from submit to delivery
    p99: float


#: What a process of simpy yields; and what it returns.
type Steps[T] = Generator[simpy.Event, Any, T]


@dataclass(eq=False)
class Thread:
    """A native thread; it has a core while it computes."""

    core: Any = None  # a simpy request, or None
    left: float = 0.0  # of its time slice
    busy: float = 0.0


@dataclass(eq=False)
class Queue:
    """As in taskqueue.c."""

    arrival: simpy.Event  # for the one that spins
    tasks: deque[Any] = field(default_factory=deque)
    idle: list[simpy.Event] = field(default_factory=list)  # the last one is woken first
    spinning: int = 0
    waking: int = 0
    holder: Thread | None = None  # of the lock
    last_holder: Thread | None = None
    is_contended: bool = False
    released: simpy.Event | None = None  # for those who spin for the lock


@dataclass(eq=False)
class Loop:
    """An event loop, and its mailbox."""

    signal: simpy.Event
    mailbox: deque[float] = field(default_factory=deque)  # when each was submitted
    thread: Thread = field(default_factory=Thread)
    is_attended: bool = False  # it will look before it sleeps: workers need not signal
    mail: simpy.Event | None = None  # for a loop that spins
    submitted_at: float = 0.0  # the first call since it looked last
    credit: int = 8  # as in bridge.c: whether to spin
    submits: int = 0  # since it spun last


class Simulation:
    """One run. `calls` are counted, after a tenth more at the beginning."""

    SLICE = 3_000.0  # what Linux lets a thread run for while others wait

    def __init__(self, costs: Costs, case: Case, calls: int = 0, seed: int = 1) -> None:
        self.costs = costs
        self.case = case
        self.calls = calls or max(4_000, 20 * case.calls_in_flight)
        self.random = random.Random(seed)
        self.env = simpy.Environment()
        self.cores = None if case.cores is None else simpy.PriorityResource(self.env, case.cores)
        self.may_spin = case.cores is None or case.cores > 1
        self.queues = [Queue(self.env.event()) for _ in range(case.queues)]
        self.loops = [Loop(self.env.event()) for _ in range(case.loops)]
        self.latencies: list[float] = []
        self.lockings = 0
        self.contentions = 0
        self.task_time = 0.0
        self.began = 0.0

    def run(self) -> Result:
        """Simulate, and return what came out."""
        finished = self.env.event()
        for number in range(self.case.workers):
            self.env.process(self.worker(self.queues[number % len(self.queues)]))
        for number, loop in enumerate(self.loops):
            share = self.case.calls_in_flight // len(self.loops)
            self.env.process(self.event_loop(loop, share, number, finished))
        self.env.run(until=finished)
        took = self.env.now - self.began
        cuts = quantiles(self.latencies, n=100)
        return Result(
            rate=len(self.latencies) / took * 1e6,
            loop_use=sum(loop.thread.busy for loop in self.loops) / took / len(self.loops),
            worker_use=self.task_time / took / self.case.workers,
            contended=self.contentions / self.lockings,
            p50=cuts[49],
            p99=cuts[98],
        )

    def begin_to_count(self) -> None:
        """Forget the warm-up."""
        self.began = self.env.now
        self.latencies.clear()
        self.lockings = self.contentions = 0
        self.task_time = 0.0
        for loop in self.loops:
            loop.thread.busy = 0.0

    # ---- threads and cores ----

    def compute(self, thread: Thread, time: float) -> Steps[None]:
        """Take so much CPU time."""
        thread.busy += time
        if self.cores is None:
            yield self.env.timeout(time)
            return
        while time > 0:
            yield from self.take_core(thread)
            part = min(time, thread.left)
            yield self.env.timeout(part)
            time -= part
            thread.left -= part
            if thread.left <= 0:
                if self.cores.queue:
                    self.give_up_core(thread)  # and stand in line again
                else:
                    thread.left = self.SLICE

    def take_core(self, thread: Thread, is_woken: bool = False) -> Steps[None]:
        if self.cores is not None and thread.core is None:
            thread.core = self.cores.request(priority=0 if is_woken else 1)
            yield thread.core
            thread.left = self.SLICE

    def give_up_core(self, thread: Thread) -> None:
        if self.cores is not None and thread.core is not None:
            self.cores.release(thread.core)
            thread.core = None

    def sleep(self, thread: Thread, event: simpy.Event, latency: float) -> Steps[None]:
        """Until the event has come, and so much longer."""
        self.give_up_core(thread)
        yield event
        yield from self.take_core(thread, is_woken=True)
        yield self.env.timeout(latency)

    def wake(self, thread: Thread, event: simpy.Event, cost: float) -> Steps[None]:
        """Wake another thread, and let it have this one's core if it needs one."""
        yield from self.compute(thread, cost)
        event.succeed()
        if self.cores is not None and self.cores.count == self.cores.capacity:
            self.give_up_core(thread)
            yield self.env.timeout(0)  # so that the other comes first

    # ---- the lock ----

    def lock(self, queue: Queue, thread: Thread, hold: float) -> Steps[None]:
        """Take the lock, and keep it so long; longer, if another thread had it before."""
        yield from self.take_core(thread)
        self.lockings += 1
        if queue.holder is not None:
            self.contentions += 1
        while queue.holder is not None:
            if not self.case.spinning_lock:
                queue.is_contended = True
                yield from self.compute(thread, self.costs.futex_wait)
                if queue.holder is None:
                    break  # as a rule it is free again when the kernel looks
            if queue.released is None:
                queue.released = self.env.event()
            if self.case.spinning_lock:
                yield queue.released
            else:
                yield from self.sleep(thread, queue.released, self.costs.unpark_latency)
        queue.holder = thread
        if queue.last_holder is not thread:
            hold += QUEUE_LINES * self.costs.hand_over
        yield from self.compute(thread, hold)
        queue.last_holder = thread

    def unlock(self, queue: Queue, thread: Thread) -> Steps[None]:
        queue.holder = None
        if queue.released is not None:
            queue.released.succeed()
            queue.released = None
        if queue.is_contended:
            queue.is_contended = False
            yield from self.compute(thread, self.costs.futex_wake)

    # ---- the loop's thread ----

    def event_loop(self, loop: Loop, share: int, number: int, finished: simpy.Event) -> Steps[None]:
        ready = share  # coroutines that are about to submit
        is_warm = number != 0  # the first loop's results say when
        delivered = 0
        next_queue = number
        while True:
            for _ in range(ready):
                yield from self.submit(loop, self.queues[next_queue % len(self.queues)])
                next_queue += 1
            yield from self.await_mail(loop)
            ready = len(loop.mailbox)
            for _ in range(ready):
                yield from self.compute(loop.thread, self.costs.deliver)
                self.latencies.append(self.env.now - loop.mailbox.popleft())
            delivered += ready
            if not is_warm and delivered * len(self.loops) >= self.calls / 10:
                is_warm = True
                self.begin_to_count()
            if is_warm and len(self.latencies) >= self.calls and not finished.triggered:
                finished.succeed()

    def await_mail(self, loop: Loop) -> Steps[None]:
        costs, thread = self.costs, loop.thread
        yield from self.compute(thread, costs.turn)
        if loop.is_attended:
            left = loop.submitted_at + costs.poll - self.env.now
            if not loop.mailbox and left > 0:
                loop.mail = self.env.event()
                began = self.env.now
                yield loop.mail | self.env.timeout(left)
                loop.mail = None
                thread.busy += self.env.now - began
            loop.credit = min(loop.credit + 1, 8) if loop.mailbox else max(loop.credit - 4, 0)
            loop.is_attended = False
        if not loop.mailbox:
            loop.signal = self.env.event()
            yield from self.sleep(thread, loop.signal, costs.signal_latency)
            yield from self.compute(thread, costs.round - costs.turn)

    def submit(self, loop: Loop, queue: Queue) -> Steps[None]:
        costs, thread = self.costs, loop.thread
        began = self.env.now
        loop.submits += 1
        if self.may_spin and not loop.is_attended and (loop.credit or loop.submits >= 32):
            loop.is_attended = True
            loop.submitted_at = began
            loop.submits = 0
        yield from self.compute(thread, max(0.0, costs.submit - costs.push_hold))
        yield from self.lock(queue, thread, costs.push)
        queue.tasks.append((loop, began))
        to_wake = None
        if queue.spinning and not queue.arrival.triggered:
            queue.arrival.succeed()
        if not (self.case.chained_wakes and queue.spinning + queue.waking > 0):
            to_wake = self.choose_idle(queue)
        yield from self.unlock(queue, thread)
        if to_wake is not None:
            yield from self.wake(thread, to_wake, costs.unpark)

    def choose_idle(self, queue: Queue) -> simpy.Event | None:
        """With the lock held: who must be woken, as those awake take too few tasks."""
        if queue.idle and len(queue.tasks) > queue.spinning + queue.waking:
            queue.waking += 1
            return queue.idle.pop()
        return None

    # ---- a worker's thread ----

    def worker(self, queue: Queue) -> Steps[None]:
        costs, thread = self.costs, Thread()
        own_work = max(0.0, costs.worker - costs.pop_hold)
        while True:
            loop, submitted = yield from self.pop(queue, thread)
            task = self.case.task
            if self.case.exponential:
                task = self.random.expovariate(1 / task) if task else 0.0
            yield from self.compute(thread, own_work + task)
            self.task_time += task
            loop.mailbox.append(submitted)
            if loop.mail is not None and not loop.mail.triggered:
                loop.mail.succeed()
            elif len(loop.mailbox) == 1 and not loop.is_attended and not loop.signal.triggered:
                yield from self.wake(thread, loop.signal, costs.signal)

    def pop(self, queue: Queue, thread: Thread) -> Steps[tuple[Loop, float]]:
        may_spin = self.may_spin
        while True:
            yield from self.lock(queue, thread, self.costs.pop)
            if queue.tasks:
                task: tuple[Loop, float] = queue.tasks.popleft()
                to_wake = self.choose_idle(queue) if self.case.chained_wakes else None
                yield from self.unlock(queue, thread)
                if to_wake is not None:
                    yield from self.wake(thread, to_wake, self.costs.unpark)
                return task
            spins = may_spin and queue.spinning == 0
            if spins:
                queue.spinning += 1
                queue.arrival = self.env.event()
            woken = self.env.event()
            if not spins:
                queue.idle.append(woken)
            yield from self.unlock(queue, thread)
            if spins:
                may_spin = False
                yield queue.arrival | self.env.timeout(self.costs.spin)
                queue.spinning -= 1
            else:
                yield from self.sleep(thread, woken, self.costs.unpark_latency)
                queue.waking -= 1


def simulate(costs: Costs, case: Case, calls: int = 0) -> Result:
    """Simulate one case."""
    return Simulation(costs, case, calls).run()
