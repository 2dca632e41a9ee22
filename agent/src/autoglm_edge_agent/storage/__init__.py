"""What the device keeps on disk, and how it is kept through a loss of power at any moment."""
