"""What kinds share whose content one node hands to another."""
