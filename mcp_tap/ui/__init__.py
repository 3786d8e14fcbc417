"""What people look at: the terminal's lines and, beside them, the desk's pages."""
