"""How fast the engine is on the user's own machine: python -m tomostream_ioc.bench."""
