"""What several tests share: a cluster of real processes."""
