"""Durable delivery: what training writes is on local disk first and reaches the platform by itself."""
