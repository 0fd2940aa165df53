/* python.c - CPython as it is, linked statically: the main of its own program. */
#include <Python.h>

int main(int argc, char **argv) { return Py_BytesMain(argc, argv); }
