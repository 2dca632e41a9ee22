"""Updates: from a desired state to a bundle that serves, through states that survive a loss of power."""
