"""The modules of all routines on strings, whose kernels are shipped."""

from ovjit_ops.text import cpu_bytes as cpu_bytes
from ovjit_ops.text import cpu_characters as cpu_characters
from ovjit_ops.text import cpu_grams as cpu_grams
from ovjit_ops.text import cpu_split as cpu_split
from ovjit_ops.text import cpu_words as cpu_words
