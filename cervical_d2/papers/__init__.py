"""The published tables as data, and the code that trains their rows."""
