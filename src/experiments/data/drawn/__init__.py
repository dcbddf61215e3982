"""Pages and drawings made from a seed, for the options that need no download; no source of real documents."""
