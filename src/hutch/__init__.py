"""hutch: a machine of one's own for every person in a lab, on the lab's shared GPU servers."""

__version__ = "0.1.0"
