"""Generated images: drawn in batches, recorded, and read back."""
