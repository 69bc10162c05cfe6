"""The processes of a run: starting them, signals, exit codes, machine faults."""
