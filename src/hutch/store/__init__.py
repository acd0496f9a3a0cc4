"""The only SQL. One module per noun, plain functions on an open transaction."""
