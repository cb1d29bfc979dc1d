"""What is done with checkpoints beside a run: building, verifying, finding the hub that an inventory declares."""
