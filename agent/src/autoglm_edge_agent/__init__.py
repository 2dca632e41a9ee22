"""The device side of autoglm-edge: pulls bundles over MQTT, serves inference, reports telemetry.

Start reading at `app`: it wires the parts together. The main process loads neither numpy nor a runtime; models run in
worker processes (`inference.worker`).
"""

__version__ = "0.1.0"
