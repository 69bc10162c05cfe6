"""Files -> checked records: formats, definitions, the registry, checks. Of the rooms, imports demo and slides."""
