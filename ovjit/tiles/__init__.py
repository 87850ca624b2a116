"""The GEMM engine of convolutions and matrix products: micro-kernel, driver, packing, plans."""
