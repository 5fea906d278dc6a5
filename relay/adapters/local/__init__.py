"""What runs on this machine alone: a nats-server and a simulated exchange as child processes, the
processes below ours, and the files by which other terminals find a local Ray.

A child never outlives its parent. Used by `cli` for demos, trials and tests, and by
actors/runtime/local_ray.py; no event passes here.
"""
