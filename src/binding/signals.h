/* signals.h: let the main thread's waits be ended by signals, without a gap. */
#ifndef AIO_BINDING_SIGNALS_H
#define AIO_BINDING_SIGNALS_H

#include <Python.h>

#include "state.h"

/* Whether this is the program's main thread, in which Python's signal handlers run; all
 * else here is for that one. In the main interpreter. -1 with an exception set. */
int aio_signals_are_mine(AioState *state);

/* From now on every signal that comes makes the descriptor returned readable; those that
 * came before are seen by PyErr_CheckSignals(). Can be nested (a signal's handler may wait
 * in turn). -1 with errno set. */
int aio_signals_watch(void);

/* There was something to read: take it. */
void aio_signals_note(void);

/* The end of the last aio_signals_watch(). */
void aio_signals_unwatch(void);

#endif
