"""What can be given back on a node, kind by kind: the look that they share, and the items that they answer."""
