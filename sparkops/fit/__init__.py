"""What fits and how fast it can be: arithmetic on geometry and arguments, before anything is loaded."""
