"""What the data modules of both domains share: loading, splitting, downloads, tables."""
