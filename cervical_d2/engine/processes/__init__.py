"""Starting the processes of a run, the signals that reach them, and how each of them ended."""
