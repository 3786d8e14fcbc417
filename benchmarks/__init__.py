"""What the tap costs, measured beside a direct connection and nginx in the same run."""
