"""Other hosts: scans, lookups and SQL over a socket, beside peers."""
