"""What a variant is judged by: one module for each metric, each giving shares per sample that add up to one figure.

`choice` says which metric is used when none is asked for; `shares` turns shares into a figure with its confidence
interval; `noise` knows the channels of an output, because a figure over all of them hides the loss of one.
"""
