"""From a source to training rows and an evaluation, and pages at the size that the model sees.

A kind of source is a file in `sources/`; the drawings that the offline options need are in `drawn/`. Models and
metrics are no business of this room.
"""
