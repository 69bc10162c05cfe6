"""The published tables as data, and what trains their rows. The last room: nothing imports it."""
