"""The steps as a graph of Ray Data, repeated in rounds until no slide is left."""
