"""Running models: worker processes, and the supervisor in the agent's main process that keeps them alive."""
