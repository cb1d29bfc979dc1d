"""What lint finds, in each format, and the formats in which a place in a file is meant."""
