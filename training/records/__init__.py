"""What a run shows while it trains: metrics, grids, progress. No run reads them back."""
