"""TFLite files: reading and changing them, their operators, quantizing them, and the candidates of a search.

Needs the extra `[tflite]`; every module that touches its packages raises MissingPackage on import without it.
"""
