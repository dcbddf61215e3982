"""A launcher that runs each job of a sweep in a process of its own."""
