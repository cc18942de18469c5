"""What tells masks from instance labels."""

MASK_VALUES = (1, 255)
"""A dataset whose only value above 0 is one of these holds masks: of 0 and 1, or of 0
and 255 as image editors write them. Any other dataset of integers holds labels."""
