"""The first time: keys of hosts, what runs on them, hosts out of other files, and the inventory made of it."""
