"""Code shared by the data modules of both domains: loading, splitting, downloads, tables, checksums, messages."""
