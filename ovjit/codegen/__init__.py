"""From plans to machine code: kernels as Python functions, intrinsics, the compiler and its object files."""
