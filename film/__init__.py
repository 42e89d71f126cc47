"""Film jobs: planned once, restored segment by segment by any number of workers, joined at the end."""
