"""The log store: what a replica must not forget, on a disk that may lie only by losing power."""
