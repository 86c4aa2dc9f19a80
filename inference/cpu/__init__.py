"""Work of the processor: images tile by tile, and paths through latent space."""
