"""The only package that calls Ray; the actors' classes are plain classes that know nothing of it.

`connection` attaches this process to a Ray, `ray_cluster` makes the actors, calls and removes them, with the
options of `options`; `key_values` keeps what outlives them, and `metrics` exports what they count. Everything
that Ray does not promise to keep is in `private_api`. The package knows which actors exist and how they are
created, but nothing of what they do; relay/control decides which actors there should be.
"""
