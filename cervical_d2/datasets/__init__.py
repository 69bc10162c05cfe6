"""From files to checked records: formats, definitions, registry, checks. Imports only the rooms demo and slides."""
