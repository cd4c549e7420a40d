"""Live orthogonal slices and crystal maps from a stream of detector frames, as an EPICS IOC."""

__version__ = "0.1.0"
