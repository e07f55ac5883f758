"""What holds sends back, and how it is let go."""
