"""The command line, by concept: options, what is read and written, what is computed and shown."""
