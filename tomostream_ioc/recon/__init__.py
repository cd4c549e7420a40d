"""Live orthogonal slices from a stream of projections: torch and numba, no EPICS, no files."""
