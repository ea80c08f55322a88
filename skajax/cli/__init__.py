"""What the command line does, a file a command; ``skajax.__main__`` reads its arguments."""
