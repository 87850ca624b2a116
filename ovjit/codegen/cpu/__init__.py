"""Machine code for CPUs: vectors, intrinsics, instruction sets, objects."""
