/* function.h: how a function is named across interpreters.
 *
 * An AioFunction is made once per function and pool, in the caller's
 * interpreter, and then never changes; tasks point to it and workers read it.
 * The pool owns it and frees it when no task can be left. Its index is the
 * place in which every worker keeps what it found under that name.
 */
#ifndef AIO_BINDING_FUNCTION_H
#define AIO_BINDING_FUNCTION_H

#include "message.h"

typedef struct AioFunction {
    size_t index;
    bool is_coroutine; /* it is a coroutine function: a worker's loop runs it */
    AioMessage name;   /* the tuple that aiointerpreters._finding.resolve() takes */
} AioFunction;

/* A pool's functions, in the interpreter that calls them. All calls hold that
 * interpreter's GIL; on a free-threaded build also the pool object's critical
 * section. */
typedef struct AioFunctionTable {
    PyObject *owner_indices; /* dict: callable -> index in `functions` */
    AioFunction **functions; /* owned */
    size_t count;
} AioFunctionTable;

int aio_function_table_init(AioFunctionTable *table);

/* Release what belongs to the interpreter; the functions stay for the workers. */
void aio_function_table_clear_owned(AioFunctionTable *table);

/* Release the rest. Needs no GIL. */
void aio_function_table_free(AioFunctionTable *table);

/* Find out how workers can find `callable`. `*function` is borrowed from the table; or
 * NULL, and `*to_send` is what the call is to carry (a new reference): the callable, which
 * then travels by pickle, or a shared value that arrives as it. `*is_coroutine`: it is a
 * coroutine function. 0, or -1 with RunnerError set where it can't be sent at all. */
int aio_function_lookup(AioState *state, AioFunctionTable *table, PyObject *callable,
                        AioFunction **function, PyObject **to_send, bool *is_coroutine);

/* In a worker: what it found so far, by index. Touched by the worker's thread only. */
typedef struct AioFunctionCache {
    PyObject **found; /* owned references, NULL where not looked for yet */
    size_t size;
} AioFunctionCache;

/* The function itself, borrowed from the cache; NULL with the exception of its
 * module set. Failures are not cached: the next call tries again. */
PyObject *aio_function_resolve(AioState *state, AioFunctionCache *cache,
                               const AioFunction *function);

/* The exception that is set came before the call of `function` (NULL: one that has no name) has
 * begun. If it is an ImportError that is noted on it, as the call may be made elsewhere then. */
void aio_function_note_not_begun(AioState *state, const AioFunction *function);

void aio_function_cache_clear(AioFunctionCache *cache);

#endif
