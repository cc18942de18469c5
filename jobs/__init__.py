"""Short programs that a site runs, reads and copies."""
