"""Who may become a device: claims, the authority that signs certificates, and what became of both.

`decisions` says what is to be done with a request, `claims` and `certificates` are rows of the database, `authority`
has the key, `registrar` joins them for the daemon, and `office` for the owner's commands.
"""
