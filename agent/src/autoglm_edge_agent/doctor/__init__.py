"""`autoglm-edge-agent doctor`: what this board is, how it fares, and what its runtimes can really do."""
