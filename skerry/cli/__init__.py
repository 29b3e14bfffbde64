"""The commands, one file a noun, loaded when they are asked for."""
