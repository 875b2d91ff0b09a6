"""What a domain publishes about its mail, in one tree of findings with what to do for each."""
