"""A study as one page: what is stored goes in, HTML that needs nothing else comes out."""
