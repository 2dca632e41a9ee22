"""How a board becomes a device of a fleet, and stays one: the identity folder, the claim that fills it, the renewal.

`identity` is what is kept, `asking` the exchange over MQTT, `enrol` the steps from a claim to an identity, `renewal`
what the running agent does before the certificate runs out. Keys are made and used in processes of their own
(`key_process`, `key_work`), because only there cryptography is loaded.
"""
