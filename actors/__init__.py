"""What runs inside Ray. Only `cluster` calls Ray; the actor classes are plain classes."""
