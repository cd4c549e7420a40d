"""The numba kernels of the CPU backend. Its modules need numba; this file does not."""

#: a resampled line has its x = y = 0 at index n + LINE_MARGIN
LINE_MARGIN = 3
#: of the second difference, taken away from a line that is interpolated linearly: kernels.shear
SHARPENING = 1.0 / 12.0


def line_length(n: int) -> int:
    """Length of a resampled line: x and y tan both reach n/2 to either side of its middle."""
    return 2 * n + 2 * LINE_MARGIN + 2
