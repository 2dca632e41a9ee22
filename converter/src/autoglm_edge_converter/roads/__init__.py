"""Roads from a framework to float files: each a program of its own, since frameworks are heavy and may crash.

`travel` starts one and reads what it says; the other side is `python -m …roads.NAME REQUEST.json`.
It prints one JSON document a line on standard output, and whatever its libraries print goes to standard error:

    {"step": "load"}                                    something was done
    {"departure": {"runnable": PATH, "inputs": [{"name": "x", "dtype": "float32", "shape": [null, 32, 32, 1]}],
                   "outputs": [...], "renditions": [{"format": "onnx", "path": PATH, "road": "tf2onnx 1.17.0",
                   "problem": null}], "versions": {}, "notes": [], "precision": "float32"}}      the last line, or
    {"error": "one line for the user", "kind": "NotAModel"}              the original cannot be used at all
"""
