"""The measurement of what connects two nodes, over the sessions of both."""
