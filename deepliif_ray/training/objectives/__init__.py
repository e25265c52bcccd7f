"""What a network is trained for: losses, optimizers and what a finished model is written as."""
