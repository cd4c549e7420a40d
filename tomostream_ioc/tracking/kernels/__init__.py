"""Kernels of peak finding on the CPU: each does a piece of one frame, without the GIL."""
