"""Documents: the files of a folder or prefix, read within limits and parsed, and those of the demo."""
