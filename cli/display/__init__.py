"""Pure text for terminals: status, audits, losses and rollouts as lines and tables of a given width.

It gets the values that `relay` reports and neither asks nor prints anything; `cli.screen` writes the lines.
"""
