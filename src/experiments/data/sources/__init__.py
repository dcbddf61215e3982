"""One file for each kind of source: its `load` reads rows and hands them on, checks and splits included."""
