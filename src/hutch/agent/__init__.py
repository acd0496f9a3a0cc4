"""The agent of a node: which accelerators it has, what they do, and who has them open.

It connects out to the server, and nobody connects to it. What it does to processes it does on the
server's order, and only to those of the container that is named which have the device open.
"""
