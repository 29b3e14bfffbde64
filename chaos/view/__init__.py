"""`skerry trace view`: a recorded run as one page that needs nothing but a browser."""
