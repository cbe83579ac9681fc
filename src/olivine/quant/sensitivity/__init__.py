"""What each matrix of a model can bear: the divergence that every way to store it causes, and the choice among them."""
