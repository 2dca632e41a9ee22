"""Reading what a model is calibrated and judged with: arrays, images, sound, tables, or a Python function.

`reading.read_data` finds the kind, splits the samples and loads those in use. Each kind is a module that gives a
`Dataset`: names, labels and a function that loads one sample, so that of many files only those in use are opened.
"""
