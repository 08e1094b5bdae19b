"""Live maps beside other dictionaries that processes share: rates, latencies, memory, and every answer verified."""
