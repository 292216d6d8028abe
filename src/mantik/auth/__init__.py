"""Tokens: where to ask for them, how to keep them, how to put them on a request."""
