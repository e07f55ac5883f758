"""The benchmarks themselves: that their arithmetic is right and their commands run. No timing is judged here."""
