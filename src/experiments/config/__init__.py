"""What can be known before torch is imported: keys, types, bounds, fit of the groups, where a model lies, errors.

Nothing here loads data or weights, or imports another room.
"""
