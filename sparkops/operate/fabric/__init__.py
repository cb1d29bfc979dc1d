"""What is done with the links between nodes beside a run: measuring, and proposing a topology."""
