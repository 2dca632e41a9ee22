"""Trust: the signed metadata of the repository (TUF), and the director who signs what each device should run."""
