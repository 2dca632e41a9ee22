"""The agent's Debian package: own and locked wheels, units and configuration, laid out and packed.

`build.build_package` is the way in. Everything that is packed comes from a checkout and the lock, and the same inputs
give the same bytes.
"""
