"""Code generation for NVIDIA GPUs: PTX, by LLVM's NVPTX back end in llvmlite. No CUDA toolkit and no card is
needed.

A kernel of ovjit is straight code over int64s and vectors of VL lanes. For a GPU, VL is 32 and a vector is a
warp: lane i is thread i, all threads compute an int64 alike, and a chunk is a warp.

    words.py      the code of each word of the kernel language, for one thread of a warp
    barriers.py   barriers of the warp in a kernel's source
    ptx.py        from a kernel's source to its PTX
"""
