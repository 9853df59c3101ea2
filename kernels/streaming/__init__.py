"""Double buffers between DDR and a core, and hand-pinned software pipelines."""
