"""Films as jobs: planned once, restored segment by segment wherever there is a worker, joined when all are done."""
