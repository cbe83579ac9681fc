"""The numeric core: how weights are rounded, how they are stored, and how a checkpoint streams through both.

Nothing here knows of passes, configurations or the Store. ``scheme`` is importable without torch.
"""
