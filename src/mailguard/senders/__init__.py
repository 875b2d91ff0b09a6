"""Who may use which address: logins held against the tables that the administrator already has."""
