"""Programs of others that read what sparkops writes: each test asks the real one, and is left out where it is not."""
