"""The parts of the command line: options, inputs and outputs, commands, console."""
