"""What hutch is about, in pure Python: words, states and arithmetic, without I/O or framework."""
