"""What the converter, the fleet and the devices of autoglm-edge say to each other.

Documents (pydantic models, one module per subject), the topics they travel on, the limits they obey, and the few
pieces of I/O that both ends must do in exactly the same way: committing to disk, reading a bundle, speaking MQTT.
"""
