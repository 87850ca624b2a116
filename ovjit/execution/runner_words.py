"""Words of the runner's functions beside those of kernels. `ovjit.codegen.cpu.atomics` has what they mean."""

from ovjit.codegen.words import Word, now

__all__ = [
    "aadd", "aload", "astore", "call4", "cas", "float_control", "give_way", "no_denormals", "now", "pause",
    "sleep_on", "wake_at",
]  # fmt: skip

aload, astore, cas, aadd = (Word(name) for name in ("aload", "astore", "cas", "aadd"))
call4, pause, give_way, sleep_on = (Word(name) for name in ("call4", "pause", "give_way", "sleep_on"))
wake_at = Word("wake_at", "wake")
no_denormals, float_control = Word("no_denormals"), Word("float_control")
