"""Many adapters behind one door: queues, batches, and who answers what."""
