"""What runs instances: one protocol, and the engines that keep it."""
