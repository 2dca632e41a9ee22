"""What became of each operator of a model on its way into each variant.

Nothing is imported here: `graph` is read where passes are made, `survey` where all of it is known.
"""
