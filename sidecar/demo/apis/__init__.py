"""Five APIs, emulated from their documentation: for the demonstration, and for the tests of the shipped policies."""
