/* shared.c: a value that is sent once and used in many calls.
 *
 *    Shared object, messages ──► AioShared: the encoded value
 *                                   │ copies
 *                     interpreter A ┴ interpreter B: the decoded value, an AioCopyOfShared
 *
 * An AioShared is counted; each interpreter that met it keeps the decoded value. When
 * the last reference is gone, every copy is returned to its interpreter, which lets go
 * of the value. Where the interpreter ends first, it takes its copies off the list.
 *
 * `copies_lock` guards, for all shared values of the process, which copies belong to
 * which shared value: it is taken when one is made or ends, and not in between. It is
 * innermost, and no Python runs under it.
 */
#include "shared.h"

#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>

#include "core/fork.h"
#include "core/list.h"
#include "home.h"
#include "message.h"

typedef struct AioShared {
    AioCounted counted;
    uint64_t id;        /* constant; never used again in this process */
    AioMessage message; /* constant */
    AioList copies;     /* CopyOfShared.link_in_shared; guarded by `copies_lock` */
} AioShared;

/* What an interpreter keeps of a shared value. */
typedef struct CopyOfShared {
    AioReturn returned;
    AioHome *home; /* a reference */
    /* Guarded by `copies_lock`; detached once the shared value has ended. */
    AioListNode link_in_shared;
    /* The owner only: */
    AioListNode link_in_state;
    AioState *owner_state;
    PyObject *owner_key; /* the id */
    PyObject *owner_value;
} CopyOfShared;

static pthread_mutex_t copies_lock = PTHREAD_MUTEX_INITIALIZER;

static void
lock_copies(void)
{
    /* A forked child has one thread when it first comes here; of the parent's others one
     * may have held the lock. */
    static _Atomic unsigned fork_generation;
    const unsigned generation = aio_fork_generation();
    if (atomic_exchange(&fork_generation, generation) != generation) {
        copies_lock = (pthread_mutex_t)PTHREAD_MUTEX_INITIALIZER;
    }
    pthread_mutex_lock(&copies_lock);
}

/* ---- copies ---- */

/* What belongs to the owner, by the owner. */
static void
let_go(CopyOfShared *copy)
{
    PyObject *copies = copy->owner_state->shared_copies;
    aio_list_unlink(&copy->link_in_state);
    if (copies != NULL && copy->owner_key != NULL && PyDict_DelItem(copies, copy->owner_key) < 0) {
        PyErr_Clear();
    }
    Py_CLEAR(copy->owner_key);
    Py_CLEAR(copy->owner_value);
}

static void
copy_discard(AioReturn *returned)
{
    CopyOfShared *copy = aio_container_of(returned, CopyOfShared, returned);
    aio_home_release(copy->home);
    free(copy);
}

static void
copy_settle(AioReturn *returned)
{
    let_go(aio_container_of(returned, CopyOfShared, returned));
    copy_discard(returned);
}

/* Keep `value` (borrowed) under that key. 0, or -1 with an exception set. */
static int
keep_copy(AioState *state, AioShared *shared, PyObject *key, PyObject *value)
{
    AioHome *home = aio_state_home(state);
    if (home != NULL && aio_home_is_closed(home)) {
        return 0; /* the interpreter ends: nothing is kept in it any more */
    }
    CopyOfShared *copy = home == NULL ? NULL : malloc(sizeof *copy);
    if (copy == NULL) {
        if (home != NULL) {
            PyErr_NoMemory();
        }
        return -1;
    }
    if (PyDict_SetItem(state->shared_copies, key, value) < 0) {
        free(copy);
        return -1;
    }
    copy->returned.settle = copy_settle;
    copy->returned.discard = copy_discard;
    aio_counted_acquire(&home->counted);
    copy->home = home;
    copy->owner_state = state;
    copy->owner_key = Py_NewRef(key);
    copy->owner_value = Py_NewRef(value);
    aio_list_append(&state->shared_list, &copy->link_in_state);
    lock_copies();
    aio_list_append(&shared->copies, &copy->link_in_shared);
    pthread_mutex_unlock(&copies_lock);
    return 0;
}

void
aio_shared_forget_all(AioState *state)
{
    AioListNode *link;
    while ((link = aio_list_pop_first(&state->shared_list)) != NULL) {
        CopyOfShared *copy = aio_container_of(link, CopyOfShared, link_in_state);
        lock_copies();
        /* Else it is on its way here already, and freed when it comes. */
        const bool is_mine = aio_list_is_linked(&copy->link_in_shared);
        aio_list_unlink(&copy->link_in_shared);
        pthread_mutex_unlock(&copies_lock);
        let_go(copy);
        if (is_mine) {
            copy_discard(&copy->returned);
        }
    }
}

/* ---- the shared value ---- */

static void
shared_free(AioCounted *counted)
{
    AioShared *shared = (AioShared *)counted;
    AioList copies;
    AioListNode *link;

    lock_copies();
    aio_list_move(&shared->copies, &copies);
    /* Detached under the lock, so that an interpreter which ends meanwhile can tell. */
    AioMailNode *chain = NULL;
    while ((link = aio_list_pop_first(&copies)) != NULL) {
        CopyOfShared *copy = aio_container_of(link, CopyOfShared, link_in_shared);
        copy->returned.node.next = chain;
        chain = &copy->returned.node;
    }
    pthread_mutex_unlock(&copies_lock);

    while (chain != NULL) {
        AioReturn *returned = aio_container_of(chain, AioReturn, node);
        chain = chain->next;
        aio_home_return(aio_container_of(returned, CopyOfShared, returned)->home, returned);
    }
    aio_message_clear(&shared->message);
    free(shared);
}

/* A value may hold shared values, which hold others, and so on. */
static void
shared_destroy(AioCounted *counted)
{
    aio_counted_destroy_later(counted, shared_free);
}

static AioShared *
shared_new(AioState *state, PyObject *value)
{
    static _Atomic uint64_t last_id; /* one count for the process */
    AioShared *shared = malloc(sizeof *shared);
    if (shared == NULL) {
        PyErr_NoMemory();
        return NULL;
    }
    aio_counted_init(&shared->counted, shared_destroy);
    shared->id = atomic_fetch_add_explicit(&last_id, 1, memory_order_relaxed) + 1;
    aio_message_init(&shared->message);
    aio_list_init(&shared->copies);
    if (aio_message_encode_value(state, &shared->message, value, "value") < 0) {
        aio_counted_release(&shared->counted);
        return NULL;
    }
    return shared;
}

/* What is kept under that key: `value` (taken), unless decoding it ran Python code that
 * came here first. NULL with an exception set. */
static PyObject *
first_copy(AioState *state, AioShared *shared, PyObject *key, PyObject *value)
{
    PyObject *first = NULL;
    if (PyDict_GetItemRef(state->shared_copies, key, &first) != 0 ||
        keep_copy(state, shared, key, value) < 0) {
        Py_SETREF(value, first); /* NULL where that failed */
    }
    return value;
}

PyObject *
aio_shared_to_python(AioState *state, AioCounted *counted)
{
    if (counted->destroy != shared_destroy) {
        PyErr_SetString(PyExc_SystemError, "aiointerpreters: what a message shares is no value");
        return NULL;
    }
    AioShared *shared = (AioShared *)counted;
    PyObject *value = NULL;
    PyObject *key = PyLong_FromUnsignedLongLong(shared->id);
    if (key == NULL) {
        return NULL;
    }
    if (PyDict_GetItemRef(state->shared_copies, key, &value) == 0 &&
        Py_EnterRecursiveCall(" while receiving a shared value") == 0) {
        value = aio_message_decode_value(state, &shared->message);
        Py_LeaveRecursiveCall();
        if (value != NULL) {
            Py_BEGIN_CRITICAL_SECTION(state->shared_copies);
            value = first_copy(state, shared, key, value);
            Py_END_CRITICAL_SECTION();
        }
    }
    Py_DECREF(key);
    return value;
}

/* ---- the Python object ---- */

typedef struct SharedObject {
    PyObject_HEAD AioShared *shared; /* a reference */
} SharedObject;

AioCounted *
aio_shared_acquire(PyObject *object)
{
    AioShared *shared = ((SharedObject *)object)->shared;
    if (shared == NULL) {
        PyErr_SetString(PyExc_RuntimeError, "the worker that had this Shared value has ended");
        return NULL;
    }
    aio_counted_acquire(&shared->counted);
    return &shared->counted;
}

static PyObject *
shared_object_detach(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    AioShared *shared = ((SharedObject *)self)->shared;
    ((SharedObject *)self)->shared = NULL;
    if (shared != NULL) {
        aio_counted_release(&shared->counted);
    }
    Py_RETURN_NONE;
}

static int
shared_object_traverse(PyObject *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    return 0;
}

static PyObject *
shared_object_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *keywords[] = {"", NULL};
    PyObject *value;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O:Shared", keywords, &value)) {
        return NULL;
    }
    SharedObject *self = (SharedObject *)type->tp_alloc(type, 0);
    if (self == NULL) {
        return NULL;
    }
    AioState *state = PyType_GetModuleState(type);
    self->shared = shared_new(state, value);
    if (self->shared == NULL) {
        Py_DECREF(self);
        return NULL;
    }
    return (PyObject *)self;
}

static void
shared_object_dealloc(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    Py_XDECREF(shared_object_detach(self, NULL));
    type->tp_free(self);
    Py_DECREF(type);
}

static PyObject *
shared_object_repr(PyObject *self)
{
    AioShared *shared = ((SharedObject *)self)->shared;
    return PyUnicode_FromFormat("<aiointerpreters.Shared number %llu>",
                                shared == NULL ? 0 : (unsigned long long)shared->id);
}

static PyObject *
shared_object_reduce(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    PyErr_SetString(
        PyExc_TypeError,
        "a Shared value can be neither copied nor pickled: pass it itself, by aiointerpreters");
    return NULL;
}

static PyMethodDef shared_methods[] = {
    {"__reduce__", shared_object_reduce, METH_NOARGS, NULL},
    {"_detach", shared_object_detach, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot shared_slots[] = {
    {Py_tp_doc,
     (void *)PyDoc_STR(
         "Shared(value, /)\n--\n\n"
         "A value that is sent to each worker once, and used in any number of calls.\n\n"
         "    lexicon = Shared(big_dict)\n"
         "    await asyncio.gather(*(runner.run(tag, lexicon, text) for text in texts))\n\n"
         "The function receives the plain value. It is encoded here and now; each worker\n"
         "decodes it at first use, and keeps it until the last reference to the Shared\n"
         "object is gone: so what one call changes in it, the next call in that worker sees.\n"
         "Buffers inside (memoryviews, arrays of numpy) are not copied at all.\n\n"
         "For a type checker it is the value: annotate it as that.\n\n"
         "Raises NotShareableError if the value cannot be sent.")},
    {Py_tp_new, shared_object_new},
    {Py_tp_dealloc, shared_object_dealloc},
    {Py_tp_traverse, shared_object_traverse},
    {Py_tp_repr, shared_object_repr},
    {Py_tp_methods, shared_methods},
    {0, NULL},
};

PyType_Spec aio_shared_spec = {
    .name = "aiointerpreters.Shared",
    .basicsize = sizeof(SharedObject),
    /* It refers to no object, but must be found at a worker's end. */
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = shared_slots,
};
