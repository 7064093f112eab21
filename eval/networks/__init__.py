"""Feature networks that judge images, their weights, and the cache of what they computed."""
