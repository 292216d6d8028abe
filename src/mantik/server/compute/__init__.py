"""The compute backend of the platform: takes projects, queues them as jobs, and shows what becomes of them."""
