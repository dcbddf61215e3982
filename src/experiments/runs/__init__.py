"""What a run or a sweep leaves on disk and says while it is alive: record, memory, energy, Trackio, estimates.

Tables and figures made of finished runs are in `reports`.
"""
