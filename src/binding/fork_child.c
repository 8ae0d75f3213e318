/* fork_child.c: let forked children of a program with subinterpreters live.
 *
 * CPython 3.13 to 3.15 crash in os.fork()'s child when there is any other
 * interpreter than the main one (python/cpython#101437):
 * PyOS_AfterFork_Child() clears the others without a thread state attached. A
 * program with a Runner could then use neither os.fork() nor multiprocessing's
 * "fork", nor subprocesses under uvloop.
 *
 * No public function can take an interpreter off CPython's list without clearing
 * it. So this file, and no other, reaches into `_PyRuntime`: before CPython comes
 * to clear the child's list, that is cut down to the main interpreter. The others'
 * memory stays as it is, unused: their threads do not exist in the child.
 *
 * The child's own handler is the place for that, unless somebody who registered
 * one earlier calls PyOS_AfterFork_Child() in his, as uvloop does. So where it is
 * CPython that forks, the list is cut before the fork already, and put right again
 * in the parent: that is safe because CPython holds the lock of that list, from
 * after the hooks of os.register_at_fork(before=...) to before those of
 * after_in_parent. Other forks, by some C library, don't hold it, and never come to
 * CPython's handler before ours. (A debug build of CPython ends such a child with a failed
 * assertion after all its work, because it counts them still.)
 *
 * Where the list's head is, `_PyRuntime` tells itself: it begins with a table of
 * offsets that CPython keeps for debuggers and profilers, the same in its first
 * fields since 3.13. What the table says is checked against the public
 * PyInterpreterState_Head() and PyInterpreterState_Next() first. If anything
 * does not match, nothing is installed, and children crash as without us.
 */
#include "fork_child.h"

#include <Python.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

/* What the first fields of CPython's _Py_DebugOffsets mean. */
typedef struct DebugOffsets {
    char cookie[8];   /* "xdebugpy" */
    uint64_t version; /* PY_VERSION_HEX of the running CPython */
    uint64_t free_threaded;
    struct {
        uint64_t size;
        uint64_t finalizing;
        uint64_t interpreters_head;
    } runtime_state;
    struct {
        uint64_t size;
        uint64_t id;
        uint64_t next;
    } interpreter_state;
} DebugOffsets;

/* CPython declares it with a type of its internal headers. */
extern char _PyRuntime[];

/* One per process, as CPython's runtime is: written once by install(), and read
 * in forked children, which have one thread. */
static PyInterpreterState **list_head;
static PyInterpreterState *main_interpreter;

/* This thread is in a fork by CPython. */
static _Thread_local bool cpython_forks;
/* The list's head during such a fork; guarded by the lock of that list. */
static PyInterpreterState *hidden_head;

static void
before_fork(void)
{
    if (cpython_forks) {
        hidden_head = *list_head;
        *list_head = main_interpreter;
    }
}

static void
after_fork_in_parent(void)
{
    if (cpython_forks) {
        *list_head = hidden_head;
    }
}

static void
after_fork_in_child(void)
{
    *list_head = main_interpreter;
    cpython_forks = false;
}

PyObject *
aio_fork_child_before(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(ignored))
{
    cpython_forks = true;
    Py_RETURN_NONE;
}

PyObject *
aio_fork_child_after(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(ignored))
{
    cpython_forks = false;
    Py_RETURN_NONE;
}

static bool
find_list_head(void)
{
    DebugOffsets offsets;
    memcpy(&offsets, _PyRuntime, sizeof offsets);
    if (memcmp(offsets.cookie, "xdebugpy", sizeof offsets.cookie) != 0 ||
        offsets.version >> 16 != PY_VERSION_HEX >> 16) {
        return false;
    }
    main_interpreter = PyInterpreterState_Main();
    list_head =
        (PyInterpreterState **)(void *)(_PyRuntime + offsets.runtime_state.interpreters_head);
    if (*list_head != PyInterpreterState_Head()) {
        return false;
    }
    PyInterpreterState **next =
        (PyInterpreterState **)(void *)((char *)main_interpreter + offsets.interpreter_state.next);
    /* The main interpreter is the oldest, and so the last one of the list. */
    return *next == NULL && PyInterpreterState_Next(main_interpreter) == NULL;
}

static void
install(void)
{
    if (find_list_head()) {
        (void)pthread_atfork(before_fork, after_fork_in_parent, after_fork_in_child);
    }
}

void
aio_fork_child_protect(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, install);
}
