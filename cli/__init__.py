"""What each command of driver.py does: one module a group. Heavy imports wait until a command needs them."""
