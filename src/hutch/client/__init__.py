"""The HTTP client: what hutch's own command line speaks, and what scripts may import.

Nothing here imports the server, pydantic or httpx: `hutch list` has to answer at once.
"""
