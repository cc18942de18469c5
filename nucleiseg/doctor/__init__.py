"""Whether a machine, or a cluster, is ready; each check says what to do if not.

Nothing is imported here: the first checks are there for what cannot be imported.
"""
