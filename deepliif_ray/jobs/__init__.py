"""Job files: what runs unattended, on this machine or submitted to a cluster."""
