"""What the command lines share: flags, messages, tables. Imports the library, is imported by the commands."""
