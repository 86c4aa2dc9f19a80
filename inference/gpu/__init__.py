"""Drawing on a CUDA device: noise, network and copies follow one another on one stream."""
