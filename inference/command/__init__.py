"""Parts of `python -m inference.run`: options, report and signals. Hosts need none of them."""
