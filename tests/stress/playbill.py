"""Which scenes are played, and how often, relative to each other."""

from __future__ import annotations

import awaiting
import disturbing
import flowing
import opening
import plain
import saying
import sharing
import staffing
import stopping
from stage import Scene

#: By some tasks of each loop: most of the calls.
BUSY: list[tuple[Scene, float]] = [
    (plain.many_small_calls, 30),
    (plain.some_small_calls, 10),
    (plain.calls_of_all_kinds, 3),
    (plain.submitted_calls_of_all_kinds, 6),
    (flowing.map_to_the_end, 4),
    (stopping.cancel_small_calls, 4),
    (awaiting.many_coroutines, 1),
]

#: By others: what takes long, or is more than calls.
RARE: list[tuple[Scene, float]] = [
    (stopping.cancel_tasks, 6),
    (stopping.interrupt_running_calls, 6),
    (stopping.cancel_waits_for_queues, 4),
    (stopping.get_stuck, 1),
    (stopping.time_limits, 4),
    (stopping.small_time_limits, 3),
    (stopping.more_than_max_pending, 4),
    (flowing.map_and_leave, 6),
    (flowing.stream_to_the_end, 6),
    (flowing.stream_and_leave, 6),
    (awaiting.coroutines_to_their_end, 6),
    (awaiting.cancel_coroutines, 3),
    (awaiting.coroutine_time_limits, 3),
    (awaiting.coroutines_with_queues, 3),
    (awaiting.nested_runner, 0.1),
    (sharing.queue_through_a_thread, 3),
    (sharing.queue_through_a_worker, 3),
    (sharing.queue_that_is_shut_down, 3),
    (sharing.shared_values, 6),
    (sharing.views_to_workers, 6),
    (sharing.views_of_workers, 6),
    (sharing.large_values, 2),
    (saying.context_variables, 6),
    (saying.log_records, 4),
    (saying.issue_warnings, 3),
    (staffing.count_in_workers, 6),
    (staffing.recycle, 0.3),
    (staffing.resize, 0.5),
    (staffing.let_idle, 3),
    (staffing.look_at_stats, 4),
    (opening.open_and_close, 0.5),
    (opening.leave_by_an_exception, 0.5),
    (opening.close_in_other_ways, 0.5),
    (opening.broken, 0.3),
    (disturbing.collect_in_a_loop, 0.5),
]

#: By a plain thread.
ROWDY = [
    (opening.lose_a_loop, 4),
    (opening.use_a_short_loop, 4),
    (opening.open_and_close_in_a_thread, 2),
    (opening.open_a_loop_for_runners, 1),
    (opening.close_at_once, 1),
    (disturbing.send_a_signal, 10),
    (disturbing.collect, 1),
    (disturbing.fork, 1),
]
