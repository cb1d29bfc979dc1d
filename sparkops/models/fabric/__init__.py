"""The fabric between nodes as values: what its parts should do, how it is laid out, what is proposed for nodes."""
