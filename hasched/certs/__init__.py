"""The cluster's certificates and tokens: who issues them, and how."""
