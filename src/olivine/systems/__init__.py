"""Places that can run a Step. Each of them runs the same worker; none of them knows what a pass is."""
