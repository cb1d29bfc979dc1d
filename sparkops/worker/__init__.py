"""The node half: standard library only, Python 3.10 and later; sent over SSH and run from memory."""
