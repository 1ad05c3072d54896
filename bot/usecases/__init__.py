"""What any replica may do: put a request into an inbox, read, answer privately."""
