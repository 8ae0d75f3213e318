/* state.h: what the module keeps per interpreter.
 *
 * Every interpreter that imports the extension has its own AioState: the main
 * one, from which tasks are submitted, and one in each worker. Nothing in it is
 * ever shared; it is only touched with that interpreter's GIL held.
 */
#ifndef AIO_BINDING_STATE_H
#define AIO_BINDING_STATE_H

#include <Python.h>

#include "core/list.h"

struct AioHome;
struct AioLeftThreads;
struct AioPool;
struct AioWorker;

/* Python objects that C needs, imported at first use: workers never pay for
 * what only callers need (asyncio, above all), and the other way round. */
typedef enum AioHelper {
    AIO_HELPER_DESCRIBE,        /* a callable -> how a worker finds it, and if it is async */
    AIO_HELPER_RESOLVE,         /* the way back, in a worker */
    AIO_HELPER_DUMPS,           /* an object and a Parcel -> pickle */
    AIO_HELPER_LOADS,           /* the way back */
    AIO_HELPER_PACK_FAILURE,    /* an exception -> plain values */
    AIO_HELPER_NOTE_NOT_BEGUN,  /* notes on an ImportError that the call has not begun */
    AIO_HELPER_REBUILD,         /* the way back */
    AIO_HELPER_BROKEN,          /* the failure of a worker's start -> BrokenRunner */
    AIO_HELPER_STUCK_ERROR,     /* what a coroutine fails with whose worker is stuck */
    AIO_HELPER_LOG_STUCK,       /* says of a call that it has made its worker stuck */
    AIO_HELPER_FIRST_STEPS,     /* what a new worker runs first, if the program wants it to */
    AIO_HELPER_FORWARD,         /* sets up `logging` or `warnings`, when it has been loaded */
    AIO_HELPER_FORWARD_LOADED,  /* the same, of what is loaded already */
    AIO_HELPER_RELEASE_ALL,     /* and one that ends, if it has to linger */
    AIO_HELPER_LEFT_THREADS,    /* what it knows of threads that are left running */
    AIO_HELPER_CALL_IN_CONTEXT, /* calls with context variables */
    AIO_HELPER_ENTER_CONTEXT,   /* the same, for coroutines */
    AIO_HELPER_RUN_LOOP,        /* what its loop's thread runs */
    AIO_HELPER_CANCELLED_ERROR,
    AIO_HELPER_RUNNER_ERROR,
    AIO_HELPER_NOT_SHAREABLE_ERROR,
    AIO_HELPER_GET_RUNNING_LOOP,
    AIO_HELPER_FUTURE,
    AIO_HELPER_CALL_FUTURE, /* the class of futures that no loop waits for */
    AIO_HELPER_SET_RESULT,  /* that settle one of these: what does not know of us */
    AIO_HELPER_SET_EXCEPTION,
    AIO_HELPER_SET_CANCELLED,
    AIO_HELPER_LOST_RACE, /* what these raise where it is settled */
    AIO_HELPER_PARTIAL,
    AIO_HELPER_SHORT_REPR,
    AIO_HELPER_MAIN_THREAD,
    AIO_HELPER_INVALID_STATE_ERROR,
    AIO_HELPER_SLEEP,
    AIO_HELPER_IMPORT, /* __import__(), as CPython has it */
    AIO_HELPER_IMPORT_MODULE,
    AIO_HELPER_QUEUE, /* the package's class, which adds what coroutines need */
    AIO_HELPER_QUEUE_EMPTY,
    AIO_HELPER_QUEUE_FULL,
    AIO_HELPER_QUEUE_SHUT_DOWN,
    AIO_HELPER_COUNT,
} AioHelper;

typedef struct AioState {
    PyTypeObject *pool_type;
    PyTypeObject *bridge_type;
    PyTypeObject *collector_type;
    PyTypeObject *ticket_type;
    PyTypeObject *memory_type;
    PyTypeObject *parcel_type;
    PyTypeObject *queue_type;
    PyTypeObject *queue_item_type;
    PyTypeObject *shared_type;
    PyTypeObject *call_type;
    PyTypeObject *method_type;
    PyTypeObject *future_type; /* made at first use: its base is asyncio's */
    PyObject *base_set_result; /* with it: that base's methods */
    PyObject *base_set_exception;
    PyObject *interrupted;               /* raised in work that a closing pool stops */
    PyObject *helpers[AIO_HELPER_COUNT]; /* NULL until aio_helper() */
    PyObject *str_set_result;
    PyObject *str_set_exception;
    PyObject *str_cancel;
    PyObject *str_get_loop;
    PyObject *str_add_reader;
    PyObject *str_remove_reader;
    PyObject *str_is_closed;
    PyObject *str_drain;
    PyObject *str_poll;
    PyObject *str_call_soon;
    PyObject *str_raw;
    PyObject *str_done;
    PyObject *str_ticket;
    PyObject *str_invoke_callbacks;

    struct AioHome *home;                /* a reference; see home.h */
    struct AioWorker *worker;            /* whose interpreter this is, borrowed; NULL: nobody's */
    unsigned long worker_thread_id;      /* of the thread that runs tasks here; 0: not a worker */
    unsigned long loop_thread_id;        /* of the thread that runs its coroutines; 0: none */
    PyObject *loop_interruption;         /* borrowed: what was sent to that thread last */
    struct AioLeftThreads *left_threads; /* on the stack of a worker that waits for them */
    PyObject *queue_bridges; /* dict: address of a loop -> weak reference to its bridge */
    PyObject *shared_copies; /* dict: id -> value, of what is shared; and as a list */
    AioList shared_list;

    /* The pools that this interpreter started and whose threads may still be
     * alive, one owned reference each; for the exit handler. Without a GIL the
     * module's critical section guards them. */
    struct AioPool **pools;
    size_t pool_count;
} AioState;

extern struct PyModuleDef aio_module_def;

/* Objects of our types keep a reference to their module, and reach the state by
 * it: unlike the way over the type this still works while the garbage collector
 * takes the interpreter apart. */
static inline AioState *
aio_state_of_module(PyObject *module)
{
    return (AioState *)PyModule_GetState(module);
}

/* Borrowed: the helper, imported if need be; NULL with an exception set. */
PyObject *aio_helper(AioState *state, AioHelper helper);

/* Raise RunnerError with a text as for PyErr_Format. Returns NULL. */
PyObject *aio_raise_runner_error(AioState *state, const char *format, ...);

#endif
