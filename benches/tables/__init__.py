"""Tables beside pandas, polars and pyarrow: time, memory, and every answer verified."""
