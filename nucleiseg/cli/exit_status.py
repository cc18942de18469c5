"""Exit statuses; they are part of the interface."""

DONE = 0
SOME_FAILED = 1
COULD_NOT_START = 2
INTERRUPTED = 130
