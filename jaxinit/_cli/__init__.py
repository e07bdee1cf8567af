"""The commands, the files that they write and the models that they load."""
