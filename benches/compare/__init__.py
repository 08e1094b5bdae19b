"""Pheon beside its peers: one run, one machine, the same data. `python -m benches.compare --help`."""
