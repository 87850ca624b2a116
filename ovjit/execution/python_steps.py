"""The C function of the built-in functions of `python_calls`, which starts import without this module."""

from ovjit.codegen.parts import routine
from ovjit.codegen.words import ld
from ovjit.execution.python_calls import ARITY, AS_INT, FAILED, FROM_INT, HEADER, RESTORE, SAVE, TARGET
from ovjit.execution.runner_words import call4


@routine
def from_python(me, arguments, count, unused):
    """The C function of a built-in function with `count` ints as arguments. `me`: the `bytes` object of its
    words. Returns a new int; 0 after an exception, and for another number of arguments."""
    words = me + HEADER
    if count != ld(words, ARITY):
        return 0
    as_int = ld(words, AS_INT)
    a = call4(as_int, ld(arguments, 0), 0, 0, 0)
    b = 0
    c = 0
    d = 0
    least = a
    if count > 1:
        b = call4(as_int, ld(arguments, 1), 0, 0, 0)
        least = min(least, b)
    if count > 2:
        c = call4(as_int, ld(arguments, 2), 0, 0, 0)
        least = min(least, c)
    if count > 3:
        d = call4(as_int, ld(arguments, 3), 0, 0, 0)
        least = min(least, d)
    if least < 0:
        if call4(ld(words, FAILED), 0, 0, 0, 0) != 0:
            return 0
    state = 0
    if ld(words, SAVE) != 0:
        state = call4(ld(words, SAVE), 0, 0, 0, 0)
    result = call4(ld(words, TARGET), a, b, c, d)
    if state != 0:
        call4(ld(words, RESTORE), state, 0, 0, 0)
    return call4(ld(words, FROM_INT), result, 0, 0, 0)
