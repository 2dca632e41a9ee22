"""The demonstration: the whole path once, on this machine, with a real model and this machine's own files."""
