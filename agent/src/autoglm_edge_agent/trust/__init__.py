"""Trust: nothing is acted on but what the director signed for this device, and no bundle but what TUF vouches for.

`gate` is what the agent asks. It runs `verifier` in a process of its own, because only there tuf and cryptography are
loaded, and keeps what was learned (`vault`); `sources` are where metadata comes from, `depots` where bundles may, too.
"""
