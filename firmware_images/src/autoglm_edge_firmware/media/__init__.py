"""Cards and images as bytes: partition tables, file systems that are never mounted, compression, block maps."""
