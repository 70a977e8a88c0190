"""Who may: accounts, passwords, sessions, and how often one may try."""
