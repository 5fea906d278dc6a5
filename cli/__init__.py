"""The commands of driver.py, one module for each or for a pair of opposites; `driver.COMMANDS` is the table.

A command parses nothing: it gets argparse's namespace, reads the configuration, asks the running relay
through `actors.client`, and prints what `cli.display` makes of the answer. Errors are raised as SluiceError;
driver.py turns them into one line and an exit code. Ray and other slow imports wait until a command needs
them (`connect`).
"""
