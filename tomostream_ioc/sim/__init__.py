"""A simulated tomoScan stream, test fixture and demo: the records and channels of the real one."""
