"""The agent's package for boards, card images, and what is done with cards."""
