"""What every actor process and every driver needs, independent of what the actor does.

`local_ray` starts or joins a Ray for a driver. In an actor's process `host` sets the process up and shows the
actor its node, `loop` runs its data plane on a thread apart from Ray's calls, `log` limits what it logs, and
`main_thread` avoids the cost of Ray's polling for signals. Nothing here knows streams, publishers or the
controller; they are given a host and create their loop from it.
"""
