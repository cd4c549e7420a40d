"""The Triton kernels of the GPU backend, and how work reaches the GPU without waiting for it."""
