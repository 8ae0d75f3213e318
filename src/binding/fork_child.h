/* fork_child.h: let forked children of a program with subinterpreters live. */
#ifndef AIO_BINDING_FORK_CHILD_H
#define AIO_BINDING_FORK_CHILD_H

/* Install the remedy, once per process. With a GIL held. */
void aio_fork_child_protect(void);

#endif
