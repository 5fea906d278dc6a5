"""Small building blocks that know nothing of streams, exchanges or NATS, such as limits, histograms and text.

Each is a module of its own with one class or a few functions, and imports none of the others' users. Time is
an argument, in monotonic seconds unless the name says otherwise. All are pure except `atomic_file`, which
replaces small files and is here because packages of several layers store their state with it.
"""
