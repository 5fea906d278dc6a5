"""The controller's decisions: which actors there should be, on which nodes, and which publisher serves which
stream. Pure.

Once a second actors/controller/reconcile_loop.py observes all actors. `observation` keeps what is known
about each of them, `autoscale` decides how many publishers there should be, `assign` which of them serves
which stream, and `reconcile` returns the instructions that bring the actors one step closer to what is
desired. The loop gives these to the cluster, and their effect shows in the next observation. `store` names
the state that must outlive the controller.

It knows no Ray, no NATS and no event; its only input are the stats that actors report.
"""
