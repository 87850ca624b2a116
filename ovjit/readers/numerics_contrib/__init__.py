"""Numerics that few models need, and rules of readers that use them: singular values and eigenvalues.
OpenVINO refuses most of them.

Nothing imports this folder: `ovjit.readers.rows.load_contributed` finds it by its name. Without it, readers
refuse these operators as they refuse unknown ones.
"""

#: reader -> the modules with rules for it
RULES = {
    "torch": ("torch_spectra",),
    "jax": ("jax_functions",),
}
