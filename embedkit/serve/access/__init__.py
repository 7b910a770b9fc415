"""Who may call, how much, and by which transport: keys, rate limits, TLS."""
