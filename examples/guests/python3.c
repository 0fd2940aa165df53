/* python3.c - CPython as it is: the whole main of python3, for ../09_program.sh to link with the static library that Debian has. */
#include <Python.h>

int main(int argc, char **argv) { return Py_BytesMain(argc, argv); }
