"""The device "GPU": runs plans for the target "cuda" on NVIDIA cards, by the driver's library alone.

driver.py     functions of libcuda by ctypes, with errors that say what to do
functions.py  PTX of a program's kernels, cached by content
device_job.py one inference: copies, a CUDA graph of the plan's steps, host steps between
"""
