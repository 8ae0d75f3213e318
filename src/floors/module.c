/* module.c: the extension module `aiointerpreters._floors`, for the benchmark suite only.
 *
 * What a machine and CPython take by themselves, without this package: no
 * implementation can be faster than that, so the suite shows it beside what
 * it measures. The package itself never loads this module.
 */
#include "floors.h"

static int
module_exec(PyObject *module)
{
    if (PyModule_AddFunctions(module, floors_wake_methods) < 0) {
        return -1;
    }
    return PyModule_AddFunctions(module, floors_interpreters_methods);
}

static PyModuleDef_Slot module_slots[] = {
    {Py_mod_exec, module_exec},
    {Py_mod_multiple_interpreters, Py_MOD_PER_INTERPRETER_GIL_SUPPORTED},
    {Py_mod_gil, Py_MOD_GIL_NOT_USED},
    {0, NULL},
};

static struct PyModuleDef module_def = {
    .m_base = PyModuleDef_HEAD_INIT,
    .m_name = "aiointerpreters._floors",
    .m_doc = "What the machine takes by itself; for the benchmark suite.",
    .m_size = 0,
    .m_slots = module_slots,
};

PyMODINIT_FUNC
PyInit__floors(void)
{
    return PyModuleDef_Init(&module_def);
}
