"""Lookups and scans of data that is not in memory, or does not fit into it, beside LMDB and RocksDB."""
