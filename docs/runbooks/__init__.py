"""What to do about each alert: a page each, which the wheel carries (``anvil_monitor.runbooks``)."""
